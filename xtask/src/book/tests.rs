//! Links that lead nowhere are found, and links in code are none.

use super::*;

fn told(chapter: &str) -> Vec<String> {
    let files = [
        ("README.md", "# Read me\n[book](docs/src/a.md)"),
        ("docs/src/SUMMARY.md", "[A](a.md)\n[B](b.md)"),
        ("docs/src/a.md", chapter),
        ("docs/src/b.md", "# What `it` costs, now\n```\n# no heading\n```"),
        ("plugins/p/lib.rs", ""),
    ];
    let files = files.map(|(path, text)| (path.to_owned(), text.to_owned()));
    links(&Tree::of(files)).iter().map(Complaint::to_string).collect()
}

#[test]
fn a_link_leads_to_a_file_a_directory_a_heading_or_away() {
    for good in [
        "[x](b.md) [y](b.md#what-it-costs-now) [z](https://example.org/nowhere)",
        "# Here\n[up](../../README.md), [code](../../plugins/p), [down](#here)",
        "`[x](none.md)`\n\n    [x](none.md)\n\n```\n[x](none.md)\n```\n",
    ] {
        assert_eq!(told(good), <[String; 0]>::default(), "{good}");
    }
    for (bad, why) in [
        ("\n[x](c.md)", "docs/src/a.md:2: the link to `c.md`: there is no docs/src/c.md"),
        ("[x](b.md#costs)", "docs/src/b.md has no such heading"),
        ("[x](b.md#no-heading)", "has no such heading"),
        ("[x](../../../x)", "leads out of the project"),
    ] {
        assert!(told(bad).iter().any(|it| it.contains(why)), "{bad}: {:?}", told(bad));
    }
}

#[test]
fn a_chapter_that_the_table_of_contents_lacks_is_lost() {
    let files =
        [("docs/src/SUMMARY.md", "[A](a.md)"), ("docs/src/a.md", ""), ("docs/src/c.md", "")];
    let files = files.map(|(path, text)| (path.to_owned(), text.to_owned()));
    let told: Vec<_> = links(&Tree::of(files)).iter().map(Complaint::to_string).collect();
    assert_eq!(told, ["docs/src/c.md: is a chapter that docs/src/SUMMARY.md lacks"]);
}
