//! Which request is which: paths, methods, and who may ask.

use std::borrow::Cow;

use hyper::{Method, Uri};
use rollout_core::JobId;
use rollout_core::event::Topics;

use crate::http::{BLOBS, EVENTS, HEALTH, JOBS, SESSION, STATUS, WORK};
use crate::identity::Identity;

/// What a client may do with a job that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// Nothing more of it is granted.
    Pause,
    /// It is granted again.
    Resume,
    /// It is ended and removed.
    Cancel,
}

/// A request that is understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    Session,
    Health,
    Work,
    Submit(JobId),
    Follow(JobId, u64),
    Control(JobId, Control),
    Status,
    Events(EventsQuery),
    HasBlob(String),
    PutBlob(String),
    GetBlob(String),
}

/// Which events a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventsQuery {
    /// Of which topics.
    pub topics: Topics,
    /// Whether those that are still to come too.
    pub follow: bool,
}

/// A request that is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Miss {
    /// There is no such path.
    Path,
    /// The path takes other methods.
    Method(&'static str),
    /// Part of the path or query is malformed.
    Malformed(Cow<'static, str>),
}

impl Miss {
    const fn malformed(why: &'static str) -> Self {
        Self::Malformed(Cow::Borrowed(why))
    }
}

impl Route {
    pub(crate) fn of(method: &Method, uri: &Uri) -> Result<Self, Miss> {
        let path = uri.path();
        let only = |wanted: Method, name, route: Self| {
            if *method == wanted { Ok(route) } else { Err(Miss::Method(name)) }
        };
        match path {
            SESSION => only(Method::POST, "POST", Self::Session),
            HEALTH => only(Method::GET, "GET", Self::Health),
            WORK => only(Method::POST, "POST", Self::Work),
            STATUS => only(Method::GET, "GET", Self::Status),
            EVENTS if *method == Method::GET => Self::of_events(uri.query()),
            EVENTS => Err(Miss::Method("GET")),
            _ => {
                if let Some(rest) = path.strip_prefix(JOBS) {
                    Self::of_job(method, rest, uri.query())
                } else if let Some(name) = path.strip_prefix(BLOBS) {
                    Self::of_blob(method, name)
                } else {
                    Err(Miss::Path)
                }
            }
        }
    }

    fn of_job(method: &Method, rest: &str, query: Option<&str>) -> Result<Self, Miss> {
        let (id, verb) = rest.split_once('/').map_or((rest, None), |(id, verb)| (id, Some(verb)));
        let id = id.parse().map_err(|_| Miss::malformed("the job's id is not a ULID"));
        match (verb, method) {
            (None, &Method::PUT) => Ok(Self::Submit(id?)),
            (None, &Method::DELETE) => Ok(Self::Control(id?, Control::Cancel)),
            (None, _) => Err(Miss::Method("PUT, DELETE")),
            (Some("follow"), &Method::GET) => Ok(Self::Follow(id?, after(query)?)),
            (Some("follow"), _) => Err(Miss::Method("GET")),
            (Some("pause"), &Method::POST) => Ok(Self::Control(id?, Control::Pause)),
            (Some("resume"), &Method::POST) => Ok(Self::Control(id?, Control::Resume)),
            (Some("pause" | "resume"), _) => Err(Miss::Method("POST")),
            _ => Err(Miss::Path),
        }
    }

    fn of_events(query: Option<&str>) -> Result<Self, Miss> {
        let (mut follow, mut topics) = (false, Vec::new());
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("follow", "true")) => follow = true,
                Some(("follow", "false")) => follow = false,
                Some(("topic", name)) => topics.push(name),
                _ => {
                    let why = "the query is not of `follow=true`, `follow=false`, `topic=<name>`";
                    return Err(Miss::malformed(why));
                }
            }
        }
        let topics =
            Topics::of(topics).map_err(|error| Miss::Malformed(error.to_string().into()))?;
        Ok(Self::Events(EventsQuery { topics, follow }))
    }

    fn of_blob(method: &Method, name: &str) -> Result<Self, Miss> {
        let hex = |b| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        if name.len() != 64 || !name.bytes().all(hex) {
            return Err(Miss::malformed("a blob's name is its SHA-256: 64 digits, lower-case hex"));
        }
        match *method {
            Method::HEAD => Ok(Self::HasBlob(name.to_owned())),
            Method::PUT => Ok(Self::PutBlob(name.to_owned())),
            Method::GET => Ok(Self::GetBlob(name.to_owned())),
            _ => Err(Miss::Method("HEAD, PUT, GET")),
        }
    }

    /// Whether this peer may ask so.
    ///
    /// # Errors
    /// Who may.
    pub(crate) const fn permits(&self, identity: &Identity) -> Result<(), &'static str> {
        let (worker, client) = match identity {
            Identity::Worker(_) => (true, false),
            Identity::Client(_) => (false, true),
            Identity::Coordinator => (false, false),
        };
        let (permitted, only) = match self {
            Self::Health => (true, ""),
            Self::Session => (worker, "only a worker opens a session"),
            Self::Work => (worker, "only a worker takes work"),
            Self::PutBlob(_) => (worker, "only a worker uploads blobs"),
            Self::HasBlob(_) => (worker || client, "only a worker or a client asks for blobs"),
            Self::GetBlob(_) => (client, "only a client downloads blobs"),
            Self::Submit(_) | Self::Follow(..) | Self::Control(..) => {
                (client, "only a client has jobs")
            }
            Self::Status => (client, "only a client asks for the status"),
            Self::Events(_) => (client, "only a client reads events"),
        };
        if permitted { Ok(()) } else { Err(only) }
    }

    /// Whether it is about a blob: those come as often as there are large results.
    pub(crate) const fn is_of_blob(&self) -> bool {
        matches!(self, Self::HasBlob(_) | Self::PutBlob(_) | Self::GetBlob(_))
    }
}

/// The number after which a job is followed; from the beginning if none is said.
fn after(query: Option<&str>) -> Result<u64, Miss> {
    let Some(query) = query.filter(|query| !query.is_empty()) else { return Ok(0) };
    let number = query.strip_prefix("after=").and_then(|after| after.parse().ok());
    number.ok_or(Miss::malformed("the query is not `after=<number>`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: &str = "01ARZ3NDEKTSV4RRFFQ69G5FAV";

    fn route(method: &Method, path: &str) -> Result<Route, Miss> {
        Route::of(method, &format!("https://coordinator{path}").parse().unwrap())
    }

    #[test]
    fn a_path_is_what_the_book_says_and_nothing_else_is_one() {
        let (job, blob) = (JOB.parse().unwrap(), "0f".repeat(32));
        let events = |topics: &[&'static str], follow| {
            let topics = Topics::of(topics.iter().copied()).unwrap();
            Ok(Route::Events(EventsQuery { topics, follow }))
        };
        let jobs = |rest: &str| format!("/v1/jobs/{JOB}{rest}");
        for (method, path, wanted) in [
            (Method::POST, "/v1/session".into(), Ok(Route::Session)),
            (Method::POST, "/v1/work".into(), Ok(Route::Work)),
            (Method::PUT, jobs(""), Ok(Route::Submit(job))),
            (Method::DELETE, jobs(""), Ok(Route::Control(job, Control::Cancel))),
            (Method::POST, jobs("/pause"), Ok(Route::Control(job, Control::Pause))),
            (Method::POST, jobs("/resume"), Ok(Route::Control(job, Control::Resume))),
            (Method::GET, jobs("/follow"), Ok(Route::Follow(job, 0))),
            (Method::GET, jobs("/follow?after=7"), Ok(Route::Follow(job, 7))),
            (Method::HEAD, format!("/v1/blobs/{blob}"), Ok(Route::HasBlob(blob.clone()))),
            (Method::GET, "/v1/events".into(), events(&[], false)),
            (Method::GET, "/v1/events?follow=false".into(), events(&[], false)),
            (
                Method::GET,
                "/v1/events?topic=log&follow=true&topic=worker_failed".into(),
                events(&["worker_failed", "log"], true),
            ),
            (Method::POST, "/v1/events".into(), Err(Miss::Method("GET"))),
            (Method::GET, jobs(""), Err(Miss::Method("PUT, DELETE"))),
            (Method::PUT, jobs("/pause"), Err(Miss::Method("POST"))),
            (Method::POST, "/v1/status".into(), Err(Miss::Method("GET"))),
            (Method::POST, jobs("/begin"), Err(Miss::Path)),
            (Method::GET, "/v1/jobs".into(), Err(Miss::Path)),
            (Method::GET, "/".into(), Err(Miss::Path)),
        ] {
            assert_eq!(route(&method, &path), wanted, "{method} {path}");
        }
        for (method, path) in [
            (Method::PUT, "/v1/jobs/7".into()),
            (Method::PUT, "/v1/jobs/".into()),
            (Method::GET, jobs("/follow?after=-1")),
            (Method::GET, jobs("/follow?since=1")),
            (Method::GET, format!("/v1/blobs/{}", blob.to_uppercase())),
            (Method::PUT, "/v1/blobs/../coord.db".into()),
            (Method::GET, "/v1/events?topic=worker".into()),
            (Method::GET, "/v1/events?topic=log%20".into()),
            (Method::GET, "/v1/events?topic".into()),
            (Method::GET, "/v1/events?follow=1".into()),
            (Method::GET, "/v1/events?after=1".into()),
        ] {
            let missed = route(&method, &path);
            assert!(matches!(missed, Err(Miss::Malformed(_))), "{method} {path}: {missed:?}");
        }
    }

    #[test]
    fn workers_take_work_clients_have_jobs_and_a_coordinator_asks_for_nothing() {
        let job = JOB.parse().unwrap();
        let (name, worker) = (String::new(), Identity::Worker(JOB.parse().unwrap()));
        let client = Identity::Client("ann".into());
        for (route, of_worker, of_client) in [
            (Route::Health, true, true),
            (Route::Session, true, false),
            (Route::Work, true, false),
            (Route::Submit(job), false, true),
            (Route::Follow(job, 0), false, true),
            (Route::Control(job, Control::Pause), false, true),
            (Route::Status, false, true),
            (Route::Events(EventsQuery { topics: Topics::ALL, follow: true }), false, true),
            (Route::HasBlob(name.clone()), true, true),
            (Route::PutBlob(name.clone()), true, false),
            (Route::GetBlob(name), false, true),
        ] {
            assert_eq!(route.permits(&worker).is_ok(), of_worker, "{route:?}");
            assert_eq!(route.permits(&client).is_ok(), of_client, "{route:?}");
            let other = route.permits(&Identity::Coordinator).is_ok();
            assert_eq!(other, route == Route::Health, "{route:?}");
        }
    }
}
