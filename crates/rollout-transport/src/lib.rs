//! How a coordinator and its peers talk: certificates and identities, the HTTP/2 + mTLS server and
//! client, and the messages on the wire.
//!
//! It knows nothing of plugins or storage, and decides nothing about workers: it hands a session's
//! lines to whoever owns the [`Server`] or the [`Link`].
//!
//! A session is one `POST /v1/session` on a connection of its own. Its request body carries
//! [`Up`] and its response body [`Down`], both JSON lines that last as long as the session.
//!
//! Everything else, a worker's work and a client's jobs, has a connection of its own: a [`Remote`].
//!
//! Entry points: [`certs::dev_identity`] and [`Tls::load`], [`Server::start`] with a [`Handler`],
//! [`connect`] and [`Remote::open`].

mod admission;
mod answer;
mod bodies;
mod ca;
pub mod certs;
pub mod client;
mod connection;
mod crowd;
mod doormen;
mod files;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzz;
mod http;
pub mod identity;
pub mod lines;
mod meter;
mod queue;
pub mod remote;
mod requests;
mod routes;
mod seldom;
pub mod server;
mod tasks;
mod tls;
mod verify;
pub mod wire;
pub mod work;
mod x509;

pub use bodies::{PieceError, PieceSink, PieceStream};
pub use certs::{CertError, CertInfo, TlsFiles};
pub use client::{ConnectError, Link, Patience, connect};
pub use doormen::Queue;
pub use identity::Identity;
pub use lines::{Gone, Line, LineSink, LineStream, TrySendError};
pub use remote::{BlobStream, CallError, Remote, WorkLink};
pub use requests::{Denied, Params, WorkSession};
pub use routes::{Control, EventsQuery};
pub use server::{
    DownSink, Handler, Refusal, RefusalKind, Server, Session, TransportError, UpStream,
};
pub use tls::Tls;
pub use wire::{Down, FenceReason, RejectReason, Up, WireError};
