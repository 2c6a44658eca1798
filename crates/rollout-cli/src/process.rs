//! What every long-running command shares: the event stream, its log records, and the runtime.

use std::path::Path;
use std::sync::Arc;

use rollout_core::{Clock, ConfigError, SystemClock};

use crate::error::CliError;
use crate::stream::Voice;
use crate::{logging, stream};

/// Runs `serve` on a runtime of this thread; what it said has been written when this returns.
pub(crate) fn run<F: Future<Output = Result<(), CliError>>>(
    serve: impl FnOnce(Arc<dyn Clock>, Voice) -> F,
) -> Result<(), CliError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let (voice, stream) = stream::open(Arc::clone(&clock)).map_err(CliError::Runtime)?;
    logging::install(voice.clone());
    let outcome = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(CliError::Runtime)
        .and_then(|runtime| runtime.block_on(serve(clock, voice)));
    stream.close();
    outcome
}

/// What is wrong with the file at `path`.
pub(crate) fn invalid(path: &Path) -> impl FnOnce(ConfigError) -> CliError {
    move |source| CliError::Config { path: path.to_owned(), source }
}
