//! A call under way, for a caller that takes what the plugin sends before its answer.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::call::{Failed, Reply};
use crate::error::{Cause, Executed, PluginError};
use crate::inbox::{Arrived, Inbox};

/// How long an item of a batch may lie about when others came right before it.
const MOMENT: Duration = Duration::from_millis(1);

/// A call or a batch under way; see [`Plugin::stream`](crate::Plugin::stream) and
/// [`Plugin::call_batch`](crate::Plugin::call_batch). Dropping it cancels what has no answer yet.
#[must_use = "it runs while `next` is awaited"]
pub struct Ongoing<'a> {
    plugin: &'a str,
    method: String,
    inbox: Arc<Inbox>,
    answer: Option<Answer<'a>>,
    /// Whether an item was taken since it was last waited.
    busy: bool,
    ended: Option<Result<Reply, Failed>>,
}

pub(crate) type Answer<'a> = Pin<Box<dyn Future<Output = Result<Reply, Failed>> + Send + 'a>>;

/// What a plugin sends.
#[derive(Debug)]
pub enum Update {
    /// It says that it is not stuck. Several such signs come as one.
    Progress,
    /// A part of what a call brings back.
    Part(Reply),
    /// The result of a batch's item.
    Item(usize, Result<Reply, PluginError>),
    /// The answer, after which nothing comes.
    End(Reply),
}

impl<'a> Ongoing<'a> {
    pub(crate) fn new(
        plugin: &'a str,
        method: &str,
        inbox: Arc<Inbox>,
        answer: Answer<'a>,
    ) -> Self {
        let method = method.to_owned();
        Self { plugin, method, inbox, answer: Some(answer), busy: false, ended: None }
    }

    /// Waits for what the plugin sends next. None after the answer, or after the error that came in
    /// its place; a batch's error stands for all items that have had no result. Can be dropped
    /// while it waits, and called again.
    pub async fn next(&mut self) -> Option<Result<Update, PluginError>> {
        loop {
            if let Some(arrived) = self.inbox.take() {
                self.busy |= matches!(arrived, Arrived::Item(..));
                return Some(Ok(self.update(arrived)));
            }
            if let Some(ended) = self.ended.take() {
                return Some(self.end(ended));
            }
            let answer = self.answer.as_mut()?;
            tokio::select! {
                // First, because it is what gives credit.
                biased;
                ended = answer => {
                    self.answer = None;
                    self.ended = Some(ended);
                }
                () = told(&self.inbox, self.busy) => self.busy = false,
            }
        }
    }

    fn update(&self, arrived: Arrived) -> Update {
        match arrived {
            Arrived::Progress => Update::Progress,
            Arrived::Part(part) => Update::Part(part),
            Arrived::Item(n, result) => Update::Item(n, result.map_err(|failed| self.at(failed))),
        }
    }

    fn end(&self, ended: Result<Reply, Failed>) -> Result<Update, PluginError> {
        let reply = ended.map_err(|failed| self.at(failed))?;
        match self.inbox.missing() {
            0 => Ok(Update::End(reply)),
            missing => {
                let message = format!("it ended a batch with {missing} items unanswered");
                Err(self.at(Failed::new(Cause::Malformed { message }, Executed::Maybe)))
            }
        }
    }

    fn at(&self, failed: Failed) -> PluginError {
        failed.at(self.plugin, &self.method)
    }
}

/// Waits until there may be something to take.
async fn told(inbox: &Inbox, busy: bool) {
    if busy {
        // Items come fast: those of the next moment are worth one waking, not each its own.
        sleep(MOMENT).await;
    } else {
        inbox.told().await;
    }
}

impl Drop for Ongoing<'_> {
    fn drop(&mut self) {
        self.inbox.close();
    }
}
