//! What the pages name exists, and each alarm has its page.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::messages::sources_in;
use crate::helpers::{pages_in, text_of};
use crate::printed::{COUNTS, DURATIONS};

/// The pages, by their names.
fn pages() -> BTreeMap<String, String> {
    let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    pages_in("docs/runbook").into_iter().map(|(path, page)| (name(path), page)).collect()
}

#[test]
fn each_alarm_has_a_page_with_all_parts_and_a_row_of_the_index() {
    let pages = pages();
    let alarms = text_of("docs/alarms.md");
    let names = alarms.lines().filter_map(|row| row.split(" | `").nth(1)?.split('`').next());
    let names: Vec<&str> = names.collect();
    assert_eq!(names.len(), 18, "{names:?}");
    for name in names {
        let file = format!("{name}.md");
        let page = pages.get(&file).unwrap_or_else(|| panic!("docs/runbook/{file} is missing"));
        assert!(page.starts_with(&format!("# {name}\n")), "{name}");
        for part in ["Meaning", "Impact", "Diagnosis", "Mitigation", "Escalation"] {
            assert!(page.contains(part), "{name} has no {part}");
        }
        assert!(pages["README.md"].contains(&format!("]({file})")), "the index lacks {name}");
    }
}

#[test]
fn each_page_is_reached_from_the_index_by_two_links() {
    let pages = pages();
    let links = |from: &str, to: &str| pages[from].contains(&format!("]({to}"));
    for name in pages.keys().filter(|name| *name != "README.md") {
        let mut between = pages.keys().filter(|page| *page != name && links("README.md", page));
        assert!(links("README.md", name) || between.any(|page| links(page, name)), "{name}");
    }
}

#[test]
fn each_command_of_a_page_is_one_of_the_makefile_with_variables_that_it_takes() {
    let makefile = text_of("Makefile");
    let programs = ["operations/operator/src", "tests/testbed/src"].map(sources_in);
    let takes = makefile.clone() + &programs.concat();
    let mut commands = 0;
    for (name, page) in pages() {
        for command in page.split(['`', '\n']).filter_map(|line| line.strip_prefix("make ")) {
            let mut words = command.split_whitespace();
            let target = words.next().unwrap();
            assert!(makefile.contains(&format!("\n{target}: ")), "{name}: make {target}");
            for (variable, _) in words.filter_map(|word| word.split_once('=')) {
                let lower =
                    variable.contains(|letter: char| !letter.is_ascii_uppercase() && letter != '_');
                assert!(lower || takes.contains(variable), "{name}: make {target} {variable}=");
            }
            commands += 1;
        }
    }
    assert!(commands >= 50, "{commands} commands");
}

#[test]
fn each_metric_is_explained_and_no_other() {
    let page = text_of("docs/metrics.md");
    let rows = page.lines().filter_map(|row| row.strip_prefix("| `")?.split('`').next());
    let known: BTreeSet<&str> = COUNTS.iter().chain(DURATIONS).copied().collect();
    assert_eq!(rows.collect::<BTreeSet<_>>(), known);
}
