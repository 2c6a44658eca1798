//! An error as a person is told of it.

use std::error::Error;
use std::iter;

/// The error and all its causes, in one line.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let causes = iter::successors(error.source(), |error| (*error).source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Told(&'static str, #[source] Option<Box<Self>>);

    #[test]
    fn every_cause_is_said_once_and_in_its_order() {
        let root = Told("no space left", None);
        assert_eq!(chain(&root), "no space left");
        let middle = Told("cannot write the page", Some(Box::new(root)));
        let error = Told("the job stops", Some(Box::new(middle)));
        assert_eq!(chain(&error), "the job stops: cannot write the page: no space left");
    }
}
