//! What is code, what is a test, where a function ends.

use super::*;

fn tree<const N: usize>(files: [(&str, &str); N]) -> Tree {
    Tree::of(files.map(|(path, text)| (path.to_owned(), text.to_owned())))
}

#[test]
fn comments_and_literals_are_no_code_and_every_position_stays() {
    for (text, code) in [
        ("a // b\nc", "a     \nc"),
        ("a /* b /* c */ d */ e", "a                   e"),
        (r#"f("x // \" y") g"#, r#"f(           ) g"#),
        (r##"r#"a " b"# c"##, "           c"),
        ("b\"x\" br\"\\\" c'", "           c'"),
        ("'a' '\\'' '\\u{1F}' 'ü'", &" ".repeat(22)),
        ("fn f<'a>(x: &'a str) {}", "fn f<'a>(x: &'a str) {}"),
        ("for \"x\"", "for    "),
        ("\"unfinished", "           "),
    ] {
        assert_eq!(rust::code(text), code, "{text}");
        assert_eq!(rust::code(text).len(), text.len());
    }
}

#[test]
fn a_function_ends_where_its_braces_do_whatever_stands_in_strings() {
    let text = "fn a() { \"}\"; }\ntrait T {\n fn b(x: [u8; 3])\n  -> u8;\n fn c() {\n  '}'\n }\n}\n\
                type F = fn(u8);\nmacro_rules! m { () => { fn $x() {} } }";
    let code = rust::code(text);
    let found: Vec<_> = functions(&code).map(|f| (f.name, f.lines)).collect();
    assert_eq!(found, [("a", 1), ("c", 3)]);
}

#[test]
fn what_is_for_tests_alone_is_not_product_in_the_file_or_in_one_of_its_own() {
    let tree = tree([
        (
            "crates/x/src/lib.rs",
            "fn a() {}\n#[cfg(test)]\nmod t {\n fn b() {}\n}\n#[cfg(test)]\nmod u;",
        ),
        ("crates/x/src/u/deep.rs", "fn c() {}"),
        ("crates/x/src/y.rs", "#[cfg(test)]\n#[path = \"y_model.rs\"]\nmod model;"),
        ("crates/x/src/y_model.rs", "fn d() {}"),
        ("crates/x/tests/z.rs", "fn e() {}"),
        ("crates/x/src/up.rs", "fn f() {}"),
    ]);
    let part = |name: &str| {
        let has = |text: &str| text.contains(&format!("fn {name}()"));
        let of = |part: fn(&File) -> &String| tree.files().any(|file| has(part(file)));
        (of(|file| &file.product), of(|file| &file.tests))
    };
    for (name, parts) in [
        ("a", (true, false)),
        ("b", (false, true)),
        ("c", (false, true)),
        ("d", (false, true)),
        ("e", (false, true)),
        ("f", (true, false)),
    ] {
        assert_eq!(part(name), parts, "{name}");
    }
}
