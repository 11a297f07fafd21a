//! What an API server asks of a kubelet, on port 10250 of each node: logs, exec, attach, port-forward, and what runs.
//!
//! HTTPS with a certificate of the cluster's CA. Who calls must hold a client certificate of that CA that belongs to the API
//! server or an administrator. Upgrades are those that kube-apiserver 1.32 to 1.36 asks for: SPDY/3.1 (also for
//! clients that speak `v5.channel.k8s.io` or tunnel SPDY through WebSocket, which the API server translates), and WebSocket as it
//! passes it through (`v4.channel.k8s.io`).
//!
//! | file | job |
//! |---|---|
//! | `server` | listener, TLS, who may call |
//! | `routes` | paths and their handlers |
//! | `request`, `reply` | queries and answers |
//! | `container_logs` | `/containerLogs` |
//! | `remote_command`, `exec`, `status` | `/exec`, `/attach` |
//! | `port_forward` | `/portForward` |
//! | `reports` | `/pods`, `/stats/summary`, `/metrics/resource` |
//! | `upgrade` | which protocol an upgrade speaks |
//! | `streams`, `spdy`, `spdy_connection`, `websocket` | streams of bytes over either protocol |
//!
//! Source: k8s.io/kubernetes/pkg/kubelet/server, k8s.io/kubelet/pkg/cri/streaming.

mod container_logs;
mod exec;
mod port_forward;
mod remote_command;
mod reply;
mod reports;
mod request;
mod routes;
mod server;
mod spdy;
mod spdy_connection;
mod status;
mod streams;
mod upgrade;
mod websocket;

pub use server::{PORT, Serving, serve};
