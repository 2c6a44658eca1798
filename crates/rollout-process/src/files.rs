//! How many files this process may have open.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Lets this process have as many files open, sockets included, as the system allows it at most;
/// how many that is. For a server of many connections: what a shell grants by default is few, for
/// the sake of programs that use `select`.
///
/// # Errors
/// When the system does not say how many there may be. When it refuses more, that is no error: the
/// number is the one that stays.
pub fn raise_open_files() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => Ok(hard),
        Err(_) => Ok(soft),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_granted_is_raised_to_what_may_be() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, hard - 1, hard).unwrap();
        assert_eq!(raise_open_files().unwrap(), hard);
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (hard, hard));
    }
}
