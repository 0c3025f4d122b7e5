//! What the documents say about the tests.

#[test]
fn every_test_that_the_table_of_faults_names_exists() {
    let root = env!("CARGO_MANIFEST_DIR");
    let read = |path: &str| std::fs::read_to_string(format!("{root}/{path}"));
    let table = read("docs/faults.md").unwrap();
    let named: Vec<(&str, &str)> = table
        .split('`')
        .skip(1)
        .step_by(2)
        .filter_map(|code| code.split_once("::"))
        .filter(|(module, _)| read(&format!("tests/behaviour/{module}.rs")).is_ok())
        .collect();

    assert!(named.len() > 50, "the table should name its tests as `module::test`");
    for (module, test) in named {
        let source = read(&format!("tests/behaviour/{module}.rs")).unwrap();
        assert!(source.contains(&format!("fn {test}()")), "{module}::{test}");
    }
}
