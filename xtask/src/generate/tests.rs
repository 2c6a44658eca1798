//! What is made is written only where it differs and only where it belongs.

use super::*;

const CHAPTER: &str =
    "# A\n\n<!-- generated: keys -->\nold\n<!-- end of generated: keys -->\n\nrest\n";

fn section(text: &str) -> Made {
    Made::Section { path: "chapter.md", name: "keys", text: text.into() }
}

#[test]
fn a_check_complains_of_what_differs_writes_nothing_and_is_content_with_what_was_written() {
    let root = tempfile::tempdir().unwrap();
    let read = |path: &str| fs::read_to_string(root.path().join(path));
    fs::write(root.path().join("chapter.md"), CHAPTER).unwrap();
    let made = [section("new\n"), Made::File { path: "a.json", text: "{}\n".into() }];
    let told = settle(root.path(), &made, true);
    assert_eq!(told.iter().map(|told| &*told.place).collect::<Vec<_>>(), ["a.json", "chapter.md"]);
    assert!(told.iter().all(|told| told.what.contains("cargo xtask generate")), "{told:?}");
    assert_eq!(read("chapter.md").unwrap(), CHAPTER);
    assert!(read("a.json").is_err());

    assert_eq!(settle(root.path(), &made, false), []);
    assert_eq!(read("a.json").unwrap(), "{}\n");
    assert_eq!(read("chapter.md").unwrap(), CHAPTER.replace("old", "\nnew\n"));
    assert_eq!(settle(root.path(), &made, true), []);
    fs::write(root.path().join("a.json"), "{ }\n").unwrap();
    assert_eq!(settle(root.path(), &made, true).len(), 1);
}

#[test]
fn two_sections_of_a_chapter_are_both_made() {
    let root = tempfile::tempdir().unwrap();
    let two = format!("{CHAPTER}{}", CHAPTER.replace("keys", "topics"));
    fs::write(root.path().join("chapter.md"), &two).unwrap();
    let topics = Made::Section { path: "chapter.md", name: "topics", text: "t".into() };
    assert_eq!(settle(root.path(), &[section("k"), topics], false), []);
    let text = fs::read_to_string(root.path().join("chapter.md")).unwrap();
    assert!(text.contains("\nk\n") && text.contains("\nt\n") && !text.contains("old"), "{text}");
}

#[test]
fn a_section_without_its_two_markers_once_each_has_no_place() {
    let root = tempfile::tempdir().unwrap();
    let end = "<!-- end of generated: keys -->\n";
    for chapter in [
        "",
        &CHAPTER.replace(end, ""),
        &CHAPTER.replace("keys -->\nold", "key -->\nold"),
        &format!("{CHAPTER}{CHAPTER}"),
        &format!("{end}{}", CHAPTER.replace(end, "")),
    ] {
        fs::write(root.path().join("chapter.md"), chapter).unwrap();
        for only_check in [true, false] {
            let told = settle(root.path(), &[section("new")], only_check);
            assert!(told.len() == 1 && told[0].what.contains("generated: keys"), "{told:?}");
        }
        assert_eq!(fs::read_to_string(root.path().join("chapter.md")).unwrap(), chapter);
    }
}
