//! What is refused before anything is asked.

use crate::desk::Desk;

#[test]
fn wrong_use_ends_with_2_and_an_example_and_asks_nothing() {
    for (wrong, why) in [
        (
            &["reconcile", "APPLY=yes"][..],
            "APPLY=yes is not like APPLY=true. For example: make reconcile",
        ),
        (
            &["reconcile", "DELETE_UP_TO=x"],
            "DELETE_UP_TO=x is not like DELETE_UP_TO=200. For example:",
        ),
        (&["reconcile", "ACOUNT=a", "APPLY=true"], "reconcile takes no ACOUNT=a. For example:"),
        // Without it, a repair is of all accounts.
        (
            &["reconcile", "ACCOUNT="],
            "ACCOUNT= is not like ACCOUNT=acct1. For example: make reconcile",
        ),
        (&["reconcile", "INDEX=i"], "reconcile takes no INDEX=i. For example: make reconcile ACC"),
        (&["explain", "INDEX=i"], "explain needs KEY, or ACCOUNT and INDEX. For example: make ex"),
        (&["try", "REMOVED=true"], "try needs ITEM. For example: make try ITEM="),
        (&["explain", "KEY=k", "ACCOUNT=a"], "KEY goes without ACCOUNT and INDEX. For example:"),
        (
            &["re-export", "INDEX=i"],
            "re-export needs ACCOUNT. For example: make re-export ACCOUNT=",
        ),
        (&["history", "KEY=k", "SINCE=soon"], "SINCE is a number of days, like 7d. For example:"),
        (&["invoke-remote"], "invoke-remote needs EVENT. For example: make invoke-remote EVENT="),
        (&["invoke-remote", "EVENT=x.json"], "x.json: No such file or directory (os error 2). For"),
    ] {
        let desk = Desk::of("prod");
        for ended in [desk.operator(wrong), desk.make(wrong)] {
            assert!(ended.stderr.starts_with(why), "{wrong:?}: {ended:?}");
            assert_eq!(ended.code, Some(2), "{wrong:?}");
        }
        assert!(desk.calls().is_empty(), "{wrong:?}");
    }
    assert_eq!(Desk::of("prod").operator(&["reconcile", "APPLY"]).code, Some(2));
    assert!(Desk::new().operator(&["explian"]).stderr.starts_with("there is no command explian"));
}

#[test]
fn what_moves_a_version_or_a_stack_takes_no_misspelt_variable() {
    for words in [
        ["release", "VERSION=6"],
        ["rollback", "VERSION=5"],
        ["deploy", "PARAMETER_FILE=x"],
        ["configure", "PARAMETER=x"],
        ["pause", "ACCOUNT=a"],
    ] {
        let desk = Desk::of("prod");
        let ended = desk.make(&words);
        let (name, _) = words[1].split_once('=').unwrap();
        assert!(ended.stderr.contains(&format!("make {} takes no {name}", words[0])), "{ended:?}");
        assert_eq!((ended.code, desk.calls().len()), (Some(2), 0), "{words:?}");
    }
    let ended = Desk::of("prod").make(&["deploy", "ARCH=x86_64", "ZIP=x.zip", "BUCKET=b"]);
    assert!(!ended.stderr.contains("takes no"), "{ended:?}");
}

#[test]
fn a_variable_of_the_shell_is_no_word_of_a_command() {
    let desk = Desk::of("prod").with("KEY", "k").with("APPLY", "true");
    assert!(desk.make(&["explain"]).stderr.starts_with("explain needs KEY"));
}

#[test]
fn no_target_calls_aws_without_the_name_of_the_environment() {
    let targets = "deploy configure release rollback status doctor explain invoke-remote reconcile \
                   follow stop-reconciles try-token tail";
    for target in targets.split(' ') {
        let desk = Desk::new();
        let words: &[&str] = match target {
            "explain" => &["explain", "KEY=k"],
            "invoke-remote" => &["invoke-remote", "EVENT=events/re-export.json"],
            _ => &[target],
        };
        let ended = desk.make(words);
        assert!(ended.stderr.contains("needs ENVIRONMENT"), "{target}: {ended:?}");
        assert_eq!((ended.code, desk.calls().len()), (Some(2), 0), "{target}");
    }
}

#[test]
fn the_local_stack_says_what_it_lacks_and_how_it_is_started() {
    let desk = Desk::of("local").with("AWS_ENDPOINT_URL_LAMBDA", "http://127.0.0.1:9");
    for command in ["status", "follow", "stop-reconciles"] {
        let ended = desk.operator(&[command]);
        assert!(ended.stderr.starts_with("the local stack has no "), "{command}: {ended:?}");
    }
    let ended = desk.operator(&["explain", "KEY=k"]);
    assert!(ended.stderr.contains("`make local` starts it"), "{ended:?}");
    assert_eq!(ended.code, Some(1));
}

#[test]
fn each_command_has_a_help_that_needs_no_environment() {
    let desk = Desk::new();
    let usage = desk.operator(&["--help"]).stdout;
    let commands = usage.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    let commands: Vec<&str> = commands.collect();
    assert_eq!(commands.len(), 10, "{usage}");
    for command in commands {
        let help = desk.operator(&[command, "--help"]);
        assert!(help.stdout.contains(&format!("\n  make {command}")), "{help:?}");
        assert!(help.stdout.lines().all(|line| line.len() <= 100), "{help:?}");
        assert_eq!(help.code, Some(0));
    }
    assert!(desk.operator(&["--version"]).stdout.starts_with("operator 0."));
}
