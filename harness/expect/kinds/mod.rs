//! The expectations, one file each.

pub(super) mod attempts;
pub(super) mod captured;
pub(super) mod clusters;
pub(super) mod endpoints_in;
pub(super) mod headers;
pub(super) mod issued_by;
pub(super) mod latency;
pub(super) mod metrics;
pub(super) mod mirrored_to;
pub(super) mod mtls;
pub(super) mod network;
pub(super) mod never;
pub(super) mod only;
pub(super) mod reached;
pub(super) mod refused;
pub(super) mod resolves;
pub(super) mod source_in;
pub(super) mod split;
pub(super) mod status;
pub(super) mod sticky;
pub(super) mod traced;
pub(super) mod trust_domain;
