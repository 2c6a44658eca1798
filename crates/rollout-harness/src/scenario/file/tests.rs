//! Scenarios that are read, and those that are refused.

use super::*;

const GOOD: &str = r#"
about = "A worker is killed"

[timing]
heartbeat_interval = "100ms"
worker_self_fence_timeout = "1s"
coordinator_failure_timeout = "1600ms"
clock_skew_budget = "100ms"

[[workers]]
name = "w1"
link = true

[[steps]]
label = "kill"
at = "1s"
do = "kill"
to = "w1"

[[steps]]
wait = { event = "worker_failed", worker = "w1", within = "5s" }

[[expect]]
event = "worker_failed"
worker = "w1"
where = { epoch = 1, credited_ms = { at_most = 0.0 } }
since = "kill"
not_before = "deadline"
not_after = "4s"

[[expect]]
none = "worker_recovered"

[[expect]]
exit = "w1"
signal = 9
"#;

fn read(text: &str) -> Result<Scenario, String> {
    Scenario::parse(Path::new("x/killed.toml"), text).map_err(|error| rollout_core::chain(&error))
}

#[test]
fn a_scenario_reads_as_it_is_written() {
    let scenario = read(GOOD).unwrap();
    assert_eq!(scenario.name, "killed");
    assert_eq!(scenario.steps[0].when, When::At(Duration::from_secs(1)));
    assert_eq!(scenario.steps[0].action, Some(Action { verb: Verb::Kill, to: "w1".into() }));
    assert_eq!(scenario.steps[1].wait.as_ref().unwrap().within, Duration::from_secs(5));
    let names: Vec<_> = scenario.expect.iter().map(|expect| expect.name.as_str()).collect();
    assert_eq!(names, ["worker_failed(w1)", "no worker_recovered", "exit of w1"]);
    let Claim::Event { not_before, count, .. } = &scenario.expect[0].claim else { panic!() };
    assert_eq!((*not_before, *count), (Some(Bound::Deadline), Count::Exactly(1)));
    assert!(scenario.may_exit("w1") && !scenario.may_exit("coord") && !scenario.is_faulty());
}

/// What is said of the good scenario with one text replaced.
fn said(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    read(&GOOD.replacen(from, to, 1)).unwrap_err()
}

#[test]
fn an_unknown_key_is_refused_by_name_wherever_it_stands() {
    for (table, line) in [
        ("about = ", "surprise = 1\nabout = "),
        ("[timing]", "[timing]\nsurprise = \"1s\""),
        ("link = true", "link = true\nsurprise = 1"),
        ("label = \"kill\"", "label = \"kill\"\nsurprise = 1"),
        ("within = \"5s\" }", "within = \"5s\", surprise = 1 }"),
        ("none = ", "surprise = 1\nnone = "),
        ("[timing]", "[coordinator]\nsurprise = 1\n[timing]"),
    ] {
        let said = said(table, line);
        assert!(said.contains("x/killed.toml") && said.contains("`surprise`"), "{said}");
    }
}

#[test]
fn what_makes_no_sense_is_refused_with_the_file_the_key_and_the_reason() {
    for (from, to, at, why) in [
        ("to = \"w1\"", "to = \"w7\"", "steps[0].to", "no process `w7`"),
        ("do = \"kill\"\nto = \"w1\"", "do = \"kill\"", "steps[0]", "`do` needs `to`"),
        ("do = \"kill\"", "do = \"delay\"", "steps[0]", "`delay` needs `by`"),
        ("do = \"kill\"", "do = \"disk_full\"", "steps[0].to", "set `disk = true`"),
        ("link = true", "id_of = \"w3\"", "workers[0].id_of", "no process `w3`"),
        ("link = true", "id_of = \"coord\"", "workers[0].id_of", "`coord` is no worker"),
        ("since = \"kill\"", "since = \"kil\"", "expect[0].since", "names no instant"),
        ("since = \"kill\"", "", "expect[0]", "count from `since`"),
        (
            "event = \"worker_failed\"\nworker",
            "event = \"worker_fell\"\nworker",
            "expect[0]",
            "no process writes",
        ),
        ("epoch = 1", "age = 1", "expect[0].where", "no attribute `age`, but "),
        ("at_most = 0.0", "most = 0.0", "expect[0].where.credited_ms", "`most`"),
        ("not_before = \"deadline\"", "not_before = \"soon\"", "expect[0].not_before", "`soon`"),
        ("not_before", "count = 0\nnot_before", "expect[0]", "with `none`"),
        ("none = ", "count = 1\nnone = ", "expect[1]", "`count` does not belong to `none`"),
        ("none = ", "exit = \"w1\"\nnone = ", "expect[1]", "one of `event`, `none`"),
        ("signal = 9", "", "expect[2]", "either a `code` or a `signal`"),
        ("signal = 9", "signal = 9\nname = \"kill\"", "expect[2]", "is a name already"),
        ("\"1600ms\"", "\"200ms\"", "timing", "must be"),
        ("at = \"1s\"", "at = \"1s\"\nafter = \"1s\"", "steps[0]", "exclude each other"),
    ] {
        let said = said(from, to);
        let due = format!("x/killed.toml: {at}: ");
        assert!(said.contains(&due) && said.contains(why), "{from} -> {to}: {said}");
    }
}

#[test]
fn what_is_no_duration_is_refused_where_it_stands() {
    let said = said("at = \"1s\"", "at = 1");
    assert!(said.contains("x/killed.toml") && said.contains("at = 1"), "{said}");
}
