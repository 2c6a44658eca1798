//! A call under way: begins it, and reports what comes of it as it comes, many items at a time when
//! many come.

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use rollout_plugin_host::{Item, Ongoing, Plugin, PluginError, Update};
use tokio::sync::mpsc;

use super::desk::Plan;
use super::verdict::{self, Answer, CallEnd};

/// What came of a call since the last time.
#[derive(Debug)]
pub(super) struct News {
    pub(super) call: u64,
    /// The plugin says that it is not stuck.
    pub(super) progress: bool,
    pub(super) answers: Vec<(usize, Answer)>,
    /// Nothing comes after this.
    pub(super) end: Option<CallEnd>,
}

/// Makes the call. Dropping it gives the call up.
pub(super) async fn run(plugin: Arc<Plugin>, plan: Plan, report: mpsc::Sender<News>) {
    let Plan { call, method, params, timeout, .. } = plan;
    let items = params.into_iter().map(|params| Item { params, payload: Bytes::new() }).collect();
    let mut ongoing = plugin.call_batch(&method, items, Some(timeout));
    loop {
        let news = next(call, timeout, &mut ongoing).await;
        let last = news.end.is_some();
        // Nobody listens only when the worker ends.
        if report.send(news).await.is_err() || last {
            return;
        }
    }
}

/// Waits for news, and takes all there is.
async fn next(call: u64, timeout: Duration, ongoing: &mut Ongoing<'_>) -> News {
    let mut news = News { call, progress: false, answers: Vec::new(), end: None };
    let mut update = ongoing.next().await;
    loop {
        news.take(update, timeout);
        if news.end.is_some() {
            return news;
        }
        match at_once(ongoing.next()).await {
            Some(next) => update = next,
            None => return news,
        }
    }
}

impl News {
    fn take(&mut self, update: Option<Result<Update, PluginError>>, timeout: Duration) {
        match update {
            Some(Ok(Update::Progress)) => self.progress = true,
            Some(Ok(Update::Item(n, answer))) => self.answers.push((n, verdict::of_item(answer))),
            // A batch has none.
            Some(Ok(Update::Part(_))) => {}
            Some(Ok(Update::End(_))) | None => self.end = Some(CallEnd::Answered),
            Some(Err(error)) => self.end = Some(verdict::of_call(&error, timeout)),
        }
    }
}

/// The outcome, if it is there without waiting.
async fn at_once<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}
