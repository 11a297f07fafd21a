//! The expectations, one file each.

mod captured;
mod clusters;
mod endpoints_in;
mod issued_by;
mod latency;
mod mtls;
mod never;
mod only;
mod reached;
mod refused;
mod resolves;
mod source_in;
mod split;
mod status;

pub use captured::Captured;
pub use clusters::Clusters;
pub use endpoints_in::EndpointsIn;
pub use issued_by::IssuedBy;
pub use latency::Latency;
pub use mtls::MutualTls;
pub use never::Never;
pub use only::Only;
pub use reached::Reached;
pub use refused::Refused;
pub use resolves::Resolves;
pub use source_in::SourceIn;
pub use split::Split;
pub use status::Status;
