//! Containment: a panic ends at the entry it happened under, as an error with its text and place.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::mem;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::Once;

use rollout_plugin_abi as abi;

use crate::Error;

thread_local! {
    /// Whether the thread is inside an entry.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
    /// Text and place of the last panic inside an entry.
    static LAST: RefCell<Option<String>> = const { RefCell::new(None) };
}

const NO_TEXT: &str = "a panic without a text";

static HOOK: Once = Once::new();

/// Runs `entry`; a panic in it becomes the error `PANIC`.
pub(crate) fn contain<T>(entry: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    HOOK.call_once(note_panics);
    let outer = INSIDE.replace(true);
    let done = panic::catch_unwind(AssertUnwindSafe(entry)).unwrap_or_else(|payload| {
        let message = LAST.take().unwrap_or_else(|| NO_TEXT.into());
        discard(payload);
        Err(Error { code: abi::PANIC, message })
    });
    INSIDE.set(outer);
    done
}

/// Panics inside an entry are noted for its error instead of being printed on the worker's standard
/// error; others are left to the hook before.
fn note_panics() {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if INSIDE.try_with(Cell::get).unwrap_or(false) {
            LAST.set(Some(describe(info)));
        } else {
            before(info);
        }
    }));
}

fn describe(info: &PanicHookInfo<'_>) -> String {
    let text = info.payload_as_str().unwrap_or(NO_TEXT);
    info.location().map_or_else(|| text.to_owned(), |place| format!("{text} ({place})"))
}

/// Drops a panic's payload, whose own drop may panic; the payload of that second panic is leaked,
/// because dropping it could panic for ever.
fn discard(payload: Box<dyn Any + Send>) {
    if let Err(again) = panic::catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        mem::forget(again);
    }
}
