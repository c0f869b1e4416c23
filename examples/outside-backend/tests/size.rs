//! What it takes to be a backend, in lines.

/// Lines that are neither empty nor comment.
fn lines(text: &str) -> usize {
    text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with("//")).count()
}

#[test]
fn a_backend_takes_few_lines_and_its_suite_about_a_dozen() {
    let driver = lines(include_str!("../src/lib.rs"))
        + lines(include_str!("../src/connection.rs"))
        + lines(include_str!("../src/roles.rs"));
    let suite = lines(include_str!("conformance.rs"));
    println!("driver: {driver} lines, suite: {suite} lines");
    assert!(driver < 200, "the driver takes {driver} lines");
    assert!(suite <= 16, "the suite takes {suite} lines");
}
