//! What both sides of an HTTP/2 connection agree on.

/// Where a session is opened, by POST.
pub(crate) const SESSION: &str = "/v1/session";
/// Where one can ask whether the server answers, by GET.
pub(crate) const HEALTH: &str = "/v1/health";
/// Where a worker's stream of work is opened, by POST.
pub(crate) const WORK: &str = "/v1/work";
/// Where one asks how everything stands, by GET.
pub(crate) const STATUS: &str = "/v1/status";
/// Where one reads the coordinator's events, by GET.
pub(crate) const EVENTS: &str = "/v1/events";
/// What the paths of jobs begin with.
pub(crate) const JOBS: &str = "/v1/jobs/";
/// What the paths of blobs begin with.
pub(crate) const BLOBS: &str = "/v1/blobs/";
/// The media type of bodies of lines.
pub(crate) const NDJSON: &str = "application/x-ndjson";

/// What a peer may send on one stream before it is read: this bounds the memory of a session
/// whose owner does not read.
pub(crate) const STREAM_WINDOW: u32 = 16 * 1024;

/// Far more than the streams of a connection can use, for the sake of h2's guard against small
/// frames. Each unread DATA frame below 256 bytes draws what it lacks to 256 on a budget of half
/// this window, and a connection that has spent it is closed with ENHANCE_YOUR_CALM. A full
/// stream window of the shortest messages (20 bytes each) draws 193 KiB of the 512: who does not
/// read for a while, or wakes to a full socket, finds the window shut and never the budget spent.
pub(crate) const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// What a stream may hold to be written: one chunk of lines, the rest waits in its queue.
pub(crate) const SEND_BUFFER: usize = 16 * 1024;

/// What the coordinator may send on one stream of a [`Remote`](crate::remote::Remote) before it is
/// read. Who opens it trusts the coordinator, and wants throughput.
pub(crate) const WIDE_STREAM_WINDOW: u32 = 1024 * 1024;
/// By the reckoning above, a stream window full of the shortest messages draws 12 MiB of the 16.
pub(crate) const WIDE_CONNECTION_WINDOW: u32 = 32 * 1024 * 1024;
