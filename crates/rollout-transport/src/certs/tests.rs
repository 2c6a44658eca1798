//! What a directory of certificates holds after each way of getting there.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rollout_core::WorkerId;
use tempfile::TempDir;

use super::*;
use crate::ca::{CA_LIFE, LEAF_LIFE};

fn worker() -> Identity {
    Identity::Worker(WorkerId::generate())
}

fn now() -> SystemTime {
    SystemClock.wall()
}

fn make_at(dir: &Path, identity: &Identity, at: SystemTime) -> Result<TlsFiles, CertError> {
    dev_identity_at(dir, identity, &[], &mut |_| (), at)
}

fn make(dir: &Path, identity: &Identity) -> Result<TlsFiles, CertError> {
    make_at(dir, identity, now())
}

fn names(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).unwrap();
    entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn copied(files: &TlsFiles) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in [&files.ca, &files.cert, &files.key] {
        fs::copy(file, dir.path().join(file.file_name().unwrap())).unwrap();
    }
    dir
}

#[test]
fn sixteen_that_start_at_once_on_an_empty_directory_share_one_ca() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("data/tls");
    let made = AtomicUsize::new(0);
    let start = Barrier::new(16);
    let mut identities: Vec<_> = (0..8).map(|_| worker()).collect();
    identities[0] = Identity::Coordinator;
    let loaded: Vec<_> = thread::scope(|scope| {
        let run = |identity: &Identity| {
            start.wait();
            let on_new_ca = &mut |path: &Path| {
                assert_eq!(path, dir.join("ca.pem"));
                made.fetch_add(1, Ordering::Relaxed);
            };
            let files = dev_identity(&dir, identity, &["127.0.0.1".into()], on_new_ca).unwrap();
            (fs::read(&files.ca).unwrap(), fs::read(&files.cert).unwrap(), Tls::load(&files))
        };
        let all: Vec<_> = identities.iter().chain(&identities).collect();
        let threads: Vec<_> = all.into_iter().map(|i| scope.spawn(move || run(i))).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(made.into_inner(), 1);
    let cas: BTreeSet<_> = loaded.iter().map(|(ca, ..)| ca).collect();
    let leaves: BTreeSet<_> = loaded.iter().map(|(_, leaf, _)| leaf).collect();
    assert_eq!((cas.len(), leaves.len()), (1, 8), "two of one identity share its certificate");
    for ((.., tls), identity) in loaded.iter().zip(identities.iter().chain(&identities)) {
        assert_eq!(tls.as_ref().unwrap().identity(), identity);
    }
    let mut expected = BTreeSet::from(["ca.pem".to_owned(), "ca.key".to_owned()]);
    for identity in &identities {
        expected.extend([".pem", ".key"].map(|end| stem(identity) + end));
    }
    assert_eq!(names(&dir), expected);
    assert_eq!(mode(&dir), 0o700);
    for name in expected.iter().filter(|name| name.ends_with(".key")) {
        assert_eq!(mode(&dir.join(name)), 0o600, "{name}");
    }
}

#[test]
fn a_certificate_holds_from_a_day_back_for_a_year_and_its_ca_for_ten() {
    let dir = tempfile::tempdir().unwrap();
    let files = dev_identity(dir.path(), &worker(), &["h.example".into()], &mut |_| ()).unwrap();
    let (ca, leaf) = (describe(&files.ca).unwrap(), describe(&files.cert).unwrap());
    for (info, life) in [(&ca, CA_LIFE), (&leaf, LEAF_LIFE)] {
        let slack = Duration::from_secs(60);
        assert!(info.not_before <= now() - DAY && info.not_before + slack > now() - DAY);
        assert!(info.not_after <= now() + life && info.not_after + slack > now() + life);
    }
    assert_eq!((ca.is_ca, &ca.identity, ca.days_left), (true, &None, 3651));
    assert_eq!((leaf.is_ca, leaf.days_left, leaf.fingerprint.len()), (false, 364, 64));
    assert_eq!(leaf.hosts, ["h.example"]);
    let tls = Tls::load(&files).unwrap();
    assert_eq!(tls.not_after(), leaf.not_after);
    assert!(tls.expires_within(LEAF_LIFE + DAY, now()) && !tls.expires_within(DAY, now()));
}

#[test]
fn a_good_certificate_is_kept_and_one_that_ends_soon_or_has_ended_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let identity = worker();
    for (age, kept) in [(0, true), (300, true), (340, false), (400, false)] {
        let files = make_at(dir.path(), &identity, now() - DAY * age).unwrap();
        let before = fs::read(&files.cert).unwrap();
        make(dir.path(), &identity).unwrap();
        assert_eq!(fs::read(&files.cert).unwrap() == before, kept, "{age} days old");
        assert!(!Tls::load(&files).unwrap().expires_within(RENEW_BEFORE, now()));
        fs::remove_file(&files.cert).unwrap();
    }
}

#[test]
fn a_new_host_or_a_wrong_identity_or_key_in_the_file_is_put_right() {
    let dir = tempfile::tempdir().unwrap();
    let (identity, other) = (worker(), worker());
    let files = make(dir.path(), &identity).unwrap();
    dev_identity(dir.path(), &identity, &["::1".into()], &mut |_| panic!("a second CA")).unwrap();
    assert_eq!(describe(&files.cert).unwrap().hosts, ["::1"]);
    let others = make(dir.path(), &other).unwrap();
    fs::copy(&others.cert, &files.cert).unwrap();
    assert!(matches!(Tls::load(&files), Err(CertError::Key { .. })));
    fs::copy(&others.key, &files.key).unwrap();
    make(dir.path(), &identity).unwrap();
    assert_eq!(Tls::load(&files).unwrap().identity(), &identity);
}

#[test]
fn an_old_ca_is_renewed_with_its_key_and_what_it_had_issued_still_holds() {
    let dir = tempfile::tempdir().unwrap();
    let (early, late) = (worker(), worker());
    let change = now() + CA_LIFE - LEAF_LIFE;
    make(dir.path(), &Identity::Coordinator).unwrap();
    let before = fs::read(dir.path().join("ca.pem")).unwrap();
    let files = make_at(dir.path(), &early, change - DAY).unwrap();
    assert_eq!(fs::read(&files.ca).unwrap(), before);
    let mut announced = 0;
    dev_identity_at(dir.path(), &late, &[], &mut |_| announced += 1, change + DAY).unwrap();
    assert_eq!(announced, 1);
    assert_ne!(fs::read(&files.ca).unwrap(), before);
    assert_eq!(Tls::load_at(&files, change + DAY).unwrap().identity(), &early);
}

#[test]
fn a_ca_whose_maker_died_before_its_certificate_gets_one_for_the_same_key() {
    let dir = tempfile::tempdir().unwrap();
    let files = make(dir.path(), &worker()).unwrap();
    let key = fs::read(dir.path().join("ca.key")).unwrap();
    fs::remove_file(&files.ca).unwrap();
    make(dir.path(), &worker()).unwrap();
    assert_eq!(fs::read(dir.path().join("ca.key")).unwrap(), key);
    assert!(Tls::load(&files).is_ok());
}

#[test]
fn without_the_ca_key_a_good_certificate_is_used_and_a_missing_or_foreign_one_is_an_error() {
    let origin = tempfile::tempdir().unwrap();
    let identity = worker();
    let away = copied(&make(origin.path(), &identity).unwrap());
    let before = names(away.path());
    let files = dev_identity(away.path(), &identity, &["new.example".into()], &mut |_| {
        panic!("it cannot make a CA")
    });
    assert!(Tls::load(&files.unwrap()).is_ok());
    let error = make(away.path(), &worker()).unwrap_err();
    assert!(matches!(&error, CertError::NoIssuer { .. }), "{error:?}");
    assert!(error.to_string().contains("rollout cert issue"), "{error}");
    let elsewhere = tempfile::tempdir().unwrap();
    let foreign = make(elsewhere.path(), &identity).unwrap();
    fs::copy(&foreign.ca, away.path().join("ca.pem")).unwrap();
    let Err(CertError::NoIssuer { source, .. }) = make(away.path(), &identity) else { panic!() };
    assert!(source.to_string().contains("another CA"), "{source}");
    assert_eq!(names(away.path()), before);
}

#[test]
fn a_ca_whose_key_is_another_is_never_replaced() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let files = make(dir.path(), &worker()).unwrap();
    let pem = fs::read(&files.ca).unwrap();
    make(other.path(), &worker()).unwrap();
    fs::copy(other.path().join("ca.key"), dir.path().join("ca.key")).unwrap();
    assert!(matches!(make(dir.path(), &worker()), Err(CertError::ForeignCa(_))));
    assert_eq!(fs::read(&files.ca).unwrap(), pem);
}

#[test]
fn a_key_that_others_may_read_is_refused_by_name() {
    for name in ["ca.key", "coordinator.key"] {
        let dir = tempfile::tempdir().unwrap();
        let files = make(dir.path(), &Identity::Coordinator).unwrap();
        fs::set_permissions(dir.path().join(name), Permissions::from_mode(0o640)).unwrap();
        let error = make(dir.path(), &Identity::Coordinator).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("0640"), "{error}");
        assert_eq!(Tls::load(&files).is_err(), name == "coordinator.key");
    }
}

#[test]
fn an_expired_certificate_does_not_load_and_the_error_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let files = make_at(dir.path(), &Identity::Coordinator, now() - DAY * 366).unwrap();
    let error = Tls::load(&files).unwrap_err().to_string();
    assert!(error.contains("coordinator.pem") && error.contains("expired"), "{error}");
    let error = Tls::load_at(&files, now() - DAY * 370).unwrap_err().to_string();
    assert!(error.contains("not valid yet"), "{error}");
}

#[test]
fn by_hand_a_ca_is_made_once_and_issues_what_needs_no_ca_key() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let ca = init_ca(dir.path()).unwrap();
    assert!(describe(&ca).unwrap().is_ca);
    assert!(matches!(init_ca(dir.path()), Err(CertError::CaExists(path)) if path == ca));
    let identity = Identity::Client("ann".into());
    let hosts = ["10.0.0.7".to_owned(), "*.example".to_owned()];
    let files = issue(dir.path(), &identity, &hosts, out.path()).unwrap();
    assert_eq!(Tls::load(&files).unwrap().identity(), &identity);
    assert_eq!(describe(&files.cert).unwrap().hosts, hosts);
    let expected = ["ca.pem", "client-ann.key", "client-ann.pem"].map(str::to_owned);
    assert_eq!(names(out.path()), expected.into());
    let error = issue(dir.path(), &identity, &["a b".to_owned()], out.path()).unwrap_err();
    assert!(error.to_string().contains("`a b`"), "{error}");
    let error = issue(out.path(), &identity, &[], out.path()).unwrap_err();
    assert!(matches!(error, CertError::NoCa(_)), "{error:?}");
}

#[test]
fn issuing_into_the_directory_of_another_ca_is_refused_and_changes_nothing() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    init_ca(dir.path()).unwrap();
    let pem = fs::read(init_ca(other.path()).unwrap()).unwrap();
    let error = issue(dir.path(), &worker(), &[], other.path()).unwrap_err();
    assert!(matches!(error, CertError::CaExists(_)), "{error:?}");
    assert_eq!(fs::read(other.path().join("ca.pem")).unwrap(), pem);
    assert_eq!(names(other.path()).len(), 2);
}

#[test]
fn a_ca_made_by_something_else_does_not_issue() {
    let dir = tempfile::tempdir().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    fs::write(dir.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    fs::write(dir.path().join("ca.key"), key.serialize_pem()).unwrap();
    fs::set_permissions(dir.path().join("ca.key"), Permissions::from_mode(0o600)).unwrap();
    assert!(matches!(make(dir.path(), &worker()), Err(CertError::ForeignCa(_))));
}

#[test]
fn what_is_not_a_certificate_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x.pem");
    assert!(matches!(describe(&file), Err(CertError::Io { .. })));
    fs::write(&file, "hello").unwrap();
    assert!(matches!(describe(&file), Err(CertError::Pem { .. })));
    fs::write(&file, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    let error = describe(&file).unwrap_err();
    assert!(matches!(error, CertError::Unreadable(_)) && error.to_string().contains("x.pem"));
}
