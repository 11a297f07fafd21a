//! What runs in the clusters: sleep, helloworld, and the user's own manifests.

pub mod pods;
