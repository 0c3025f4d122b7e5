//! What the documents say about each other.

use std::path::{Path, PathBuf};

/// The pages, by their paths in the repository.
fn pages() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let in_folder = |folder: &Path| std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let docs = root.join("docs");
    let entries = in_folder(root).chain(in_folder(&docs)).chain(in_folder(&docs.join("runbook")));
    let paths = entries.map(|entry| entry.path());
    let pages = paths.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    pages.map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect()
}

fn has_heading(page: &str, anchor: &str) -> bool {
    let of = |heading: &str| -> String {
        let letters = heading.trim_matches(['#', ' ']).to_lowercase().replace(' ', "-");
        letters
            .chars()
            .filter(|letter| letter.is_alphanumeric() || "-_".contains(*letter))
            .collect()
    };
    page.lines().filter(|line| line.starts_with('#')).any(|line| of(line) == anchor)
}

#[test]
fn every_link_between_the_pages_leads_somewhere() {
    let mut links = 0;
    for (path, page) in pages() {
        for target in page.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") || target.contains(char::is_whitespace) {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let there = match file {
                "" => path.clone(),
                file => path.parent().unwrap().join(file),
            };
            assert!(there.exists(), "{} links to {target}", path.display());
            let has_anchor =
                anchor.is_empty() || has_heading(&std::fs::read_to_string(&there).unwrap(), anchor);
            assert!(has_anchor, "{} links to {target}", path.display());
            links += 1;
        }
    }
    assert!(links > 100, "{links} links");
}

#[test]
fn every_file_in_which_a_decision_is_made_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/architecture.md")).unwrap();
    let (_, table) = page.split_once("## Where each decision is made").unwrap();
    let files: Vec<&str> =
        table.split('`').skip(1).step_by(2).filter(|name| name.ends_with(".rs")).collect();
    assert!(files.len() > 20, "{files:?}");
    for file in files {
        let there =
            ["src", "src/export"].iter().any(|folder| root.join(folder).join(file).exists());
        assert!(there, "{file}");
    }
}
