//! Links between the pages, and the files that they name.

use std::path::Path;

use crate::helpers::{pages_in, text_of};

fn has_heading(page: &str, anchor: &str) -> bool {
    let anchor_of = |heading: &str| -> String {
        let letters = heading.trim_matches(['#', ' ']).to_lowercase().replace(' ', "-");
        letters
            .chars()
            .filter(|letter| letter.is_alphanumeric() || "-_".contains(*letter))
            .collect()
    };
    page.lines().filter(|line| line.starts_with('#')).any(|line| anchor_of(line) == anchor)
}

#[test]
fn every_link_between_the_pages_leads_somewhere() {
    for (path, page) in ["", "docs", "docs/runbook"].into_iter().flat_map(pages_in) {
        for target in page.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") || target.contains(char::is_whitespace) {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let there = if file.is_empty() { path.clone() } else { path.with_file_name(file) };
            assert!(there.exists(), "{} links to {target}", path.display());
            let found =
                anchor.is_empty() || has_heading(&std::fs::read_to_string(&there).unwrap(), anchor);
            assert!(found, "{} links to {target}", path.display());
        }
    }
}

/// The files in backticks of a page's table have to exist below one of these folders.
#[test]
fn every_file_that_the_pages_on_code_and_tests_name_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (page, folders) in [
        ("docs/architecture.md", &["src", "src/export"][..]),
        ("docs/testing.md", &["", "src", "src/export", "tests/behaviour"]),
    ] {
        let text = text_of(page);
        let rows = text.lines().filter(|line| line.starts_with('|'));
        let names = rows.flat_map(|row| row.split('`').skip(1).step_by(2));
        let files: Vec<&str> = names.filter(|name| name.ends_with(".rs")).collect();
        assert!(files.len() >= 20, "{page}: {files:?}");
        for file in files {
            let there = folders.iter().any(|folder| root.join(folder).join(file).exists());
            assert!(there, "{page} names {file}");
        }
    }
}
