//! (room to be furnished) The node agent: runs pods without a kubelet.
