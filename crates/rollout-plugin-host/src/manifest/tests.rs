//! What a manifest may and may not say.

use proptest::prelude::*;

use super::*;

const HEAD: &str = "[plugin]\nname = \"a\"\nversion = \"1\"\n";
const SIDECAR: &str = "[entry.sidecar]\ncommand = [\"sh\"]\n";

fn parse(text: &str) -> Result<Manifest, Wrong> {
    Manifest::parse(text, Path::new("/here"))
}

fn sidecar(rest: &str) -> Result<Manifest, Wrong> {
    parse(&format!("{HEAD}{SIDECAR}{rest}"))
}

fn cdylib(rest: &str) -> Result<Manifest, Wrong> {
    parse(&format!("{HEAD}[entry.cdylib]\n{rest}"))
}

#[test]
fn a_minimal_manifest_has_the_default_limits() {
    let manifest = sidecar("").unwrap();
    assert_eq!((&*manifest.name, &*manifest.version), ("a", "1"));
    assert_eq!((manifest.limits, manifest.restart), (Limits::default(), Restart::default()));
    assert!(manifest.probe.is_none() && manifest.config.is_empty());
    let Entry::Sidecar(entry) = manifest.entry else { panic!("a sidecar") };
    assert_eq!((&entry.cwd, &entry.command), (&PathBuf::from("/here/"), &vec!["sh".into()]));
}

#[test]
fn a_call_may_take_as_long_as_its_caller_says_unless_the_manifest_says_less() {
    let of = |rest: &str, wanted: Option<u64>| {
        let limits = sidecar(rest).unwrap().limits;
        limits.call_timeout(wanted.map(Duration::from_secs)).as_secs()
    };
    let given = "[limits]\ncall_timeout = \"90s\"";
    assert_eq!([of("", None), of("", Some(600)), of("", Some(1))], [60, 600, 1]);
    assert_eq!([of(given, None), of(given, Some(600)), of(given, Some(1))], [90, 90, 1]);
}

#[test]
fn the_manifest_in_the_book_is_accepted_and_shows_the_defaults() {
    let book = include_str!("../../../../docs/src/plugins.md");
    let (_, chapter) = book.split_once("## The manifest").unwrap();
    let (chapter, _) = chapter.split_once("\n## ").unwrap();
    let lines: Vec<_> = chapter.lines().filter_map(|line| line.strip_prefix("    ")).collect();
    let manifest = parse(&lines.join("\n")).unwrap();
    assert_eq!((manifest.limits, manifest.restart), (Limits::default(), Restart::default()));
    for key in ["call_timeout", "memory", "open_files", "cancel_grace", "backoff_initial", "window"]
    {
        assert!(lines.iter().any(|line| line.trim_start_matches("# ").starts_with(key)), "{key}");
    }
}

#[test]
fn relative_paths_are_relative_to_the_manifest_and_a_library_is_named_by_its_stem() {
    let path = |text: &str| match cdylib(text).unwrap().entry {
        Entry::Cdylib(entry) => entry.path,
        Entry::Sidecar(_) => panic!("a cdylib"),
    };
    let file = format!("{}b.c{}", env::consts::DLL_PREFIX, env::consts::DLL_SUFFIX);
    assert_eq!(path("path = \"t/b.c\""), Path::new("/here/t").join(&file));
    assert_eq!(path("path = \"/t/b.c\""), Path::new("/t").join(&file));
    for bad in ["libb.so", "b.dylib", ""] {
        let error = cdylib(&format!("path = \"{bad}\"")).unwrap_err();
        assert!(error.message.contains("entry.cdylib.path"), "{}", error.message);
    }
    let text = format!("{HEAD}[entry.sidecar]\ncommand = [\"./run\", \"./x\"]\ncwd = \"d\"");
    let Entry::Sidecar(entry) = parse(&text).unwrap().entry else { panic!("a sidecar") };
    assert_eq!(entry.command, ["/here/./run", "./x"]);
    assert_eq!(entry.cwd, Path::new("/here/d"));
}

#[test]
fn an_unknown_key_of_any_table_is_named() {
    for rest in [
        "[restart]\nmax_restarts = 1",
        "[limits]\ncpu = 1",
        "[probe]\nmethod = \"m\"\nparam = 1",
        "shell = true",
    ] {
        let error = sidecar(rest).unwrap_err();
        assert!(error.unknown_field && error.message.contains("unknown field `"), "{rest}");
    }
    assert!(cdylib("path = \"p\"\ncwd = \"c\"").unwrap_err().unknown_field);
    assert!(parse("[plugin]\nid = 1").unwrap_err().unknown_field);
}

#[test]
fn a_value_out_of_range_is_named_with_its_key() {
    for (rest, key) in [
        ("[limits]\nmax_frame = 4095", "limits.max_frame (4095)"),
        ("[limits]\nmax_frame = 2000000000", "limits.max_frame"),
        ("[limits]\nmax_in_flight = 0", "limits.max_in_flight (0)"),
        ("[limits]\nmemory = 1000", "limits.memory (1000)"),
        ("[limits]\nopen_files = 3", "limits.open_files (3)"),
        ("[limits]\nstart_timeout = \"0s\"", "limits.start_timeout"),
        ("[limits]\ncall_timeout = \"2days\"", "limits.call_timeout"),
        ("[limits]\ncancel_grace = \"0s\"", "limits.cancel_grace"),
        ("[limits]\nshutdown_grace = \"1\"", "not a duration"),
        ("[restart]\nbackoff_initial = \"0s\"", "restart.backoff_initial (0ns)"),
        ("[restart]\nbackoff_initial = \"9s\"", "at most restart.backoff_max (5s)"),
        ("[restart]\nbackoff_max = \"2days\"", "restart.backoff_max"),
        ("[restart]\nwindow = \"0s\"", "restart.window"),
        ("[restart]\nmax_crashes = 0", "restart.max_crashes (0)"),
        ("[config]\na.b = nan", "config.a.b"),
        ("[probe]\nmethod = \"m\"\nparams.x = inf", "probe.params.x"),
        ("env_allow = [\"A=B\"]", "`A=B`"),
        ("env = { \"\" = \"x\" }", "``"),
        ("[entry.cdylib]\npath = \"p\"", "either [entry.cdylib] or [entry.sidecar]"),
    ] {
        let error = sidecar(rest).unwrap_err();
        assert!(!error.unknown_field && error.message.contains(key), "{}", error.message);
    }
    let nothing = format!("{HEAD}[entry]");
    assert!(parse(&nothing).unwrap_err().message.contains("either"));
    let empty = format!("{HEAD}[entry.sidecar]\ncommand = []");
    assert!(parse(&empty).unwrap_err().message.contains("entry.sidecar.command"));
    for bad in ["", "a b", "x\u{1b}", &"n".repeat(65)] {
        let text = format!("[plugin]\nname = {bad:?}\nversion = \"1\"\n{SIDECAR}");
        let text = text.replace("\\u{1b}", "\\u001b");
        assert!(parse(&text).unwrap_err().message.contains("plugin.name"), "{text}");
    }
    let pin = cdylib("path = \"p\"\nsha256 = \"12\"").unwrap_err();
    assert!(pin.message.contains("entry.cdylib.sha256 (`12`)"), "{}", pin.message);
}

#[test]
fn a_key_without_effect_on_a_library_is_refused_in_its_manifest() {
    for (table, key, value) in
        [("limits", "open_files", "64"), ("restart", "backoff_initial", "\"1s\"")]
    {
        let error = cdylib(&format!("path = \"p\"\n[{table}]\n{key} = {value}")).unwrap_err();
        let want = format!("{table}.{key} is for sidecars");
        assert!(error.message.starts_with(&want), "{}", error.message);
    }
    cdylib("path = \"p\"\n[restart]\nmax_crashes = 2\nwindow = \"1s\"").unwrap();
}

#[test]
fn a_table_nested_too_deep_is_refused_however_it_is_written() {
    let nested = |levels: usize| {
        let keys = vec!["a"; levels].join(".");
        let (open, close) = ("[".repeat(levels), "]".repeat(levels));
        [
            format!("[config]\n{keys} = 1"),
            format!("[config]\na = {open}{close}"),
            format!("[config.{keys}]"),
            format!("[probe]\nmethod = \"m\"\nparams.{keys} = 1"),
        ]
    };
    for (levels, good) in [(20, true), (101, false), (100_000, false)] {
        for text in nested(levels) {
            assert_eq!(sidecar(&text).is_ok(), good, "{text:.40} of {levels}");
        }
    }
}

#[test]
fn a_missing_file_is_an_error_that_names_it() {
    let error = Manifest::load(Path::new("/nowhere/x.toml")).unwrap_err();
    assert_eq!(error.to_string(), "plugin `x.toml`: cannot read /nowhere/x.toml");
    assert_eq!(error.code(), "not_found");
}

proptest! {
    #[test]
    fn junk_is_refused_without_a_panic(junk in "[\\[\\]a-z.=\"{}\n0-9 ]{0,80}") {
        prop_assert!(parse(&junk).is_err());
        let _ = sidecar(&junk);
        let _ = cdylib(&junk);
    }
}
