//! `make deploy`, `make configure` and `make rollback`.

use crate::desk::Desk;

const ARM64: u8 = 0xb7;
const X86_64: u8 = 0x3e;

/// A desk with a zip of this commit, for this machine.
fn built(commit: &str, machine: u8) -> Desk {
    let mut elf = vec![0; 64];
    elf[18] = machine;
    desk()
        .answers("unzip -p target/lambda/* target/lambda/commit", commit)
        .answers("unzip -p target/lambda/* bootstrap", elf)
        .answers("sam deploy *", "")
}

fn desk() -> Desk {
    Desk::new().with("ENVIRONMENT", "prod").answers("*OutputKey=='FunctionName'*", "prod-function")
}

#[test]
fn deploy_takes_the_zip_that_was_built_of_this_commit_for_this_architecture() {
    let desk = built("abc-dirty", ARM64);

    let made = desk.make(&["deploy", "COMMIT=abc-dirty", "PARAMETERS=A=1 'B=x y'"]);

    assert!(made.succeeded, "{made:?}");
    let calls = desk.calls();
    let deployed = calls.lines().find(|call| call.starts_with("sam deploy ")).unwrap();
    for part in [
        "--stack-name prod-ecom-settings-exporter ",
        " --tags commit=abc-dirty ",
        " Environment=prod Architecture=arm64 Commit=abc-dirty Release=",
        " A=1 B=x y",
    ] {
        assert!(deployed.contains(part), "{part}: {deployed}");
    }
}

#[test]
fn deploy_refuses_a_zip_of_another_commit_or_architecture() {
    for (desk, built) in [
        (built("def", ARM64), "commit def for arm64"),
        (built("abc", X86_64), "commit abc for x86_64"),
        (built("abc", 0), "commit abc for unknown"),
    ] {
        let made = desk.make(&["deploy", "COMMIT=abc", "ARCH=arm64"]);

        assert!(!made.succeeded && made.stderr.contains(built), "{made:?}");
        assert!(!desk.calls().contains("sam "), "{}", desk.calls());
    }
}

/// A stack whose alias points at one of these versions.
fn versions(live: &str, versions: &str) -> Desk {
    desk()
        .answers("aws lambda get-alias *", live)
        .answers("aws lambda list-versions-by-function *.Version --output*", "8\t9\n2\t7")
        .answers("aws lambda list-versions-by-function *", versions)
        .answers("aws lambda update-alias *", "")
        .answers("aws cloudformation describe-stacks *ParameterKey*", "A\tRepairEnabled\tRelease")
        .answers("aws cloudformation update-stack *", "")
        .answers("aws cloudformation wait *", "")
}

const VERSIONS: &str = "7\taaa\n8\tbbb\n9\tbbb\n10\tccc";

fn update(desk: &Desk) -> Option<String> {
    let calls = desk.calls();
    calls.lines().find(|call| call.contains("update-")).map(str::to_owned)
}

#[test]
fn rollback_points_the_alias_at_the_newest_version_of_the_commit_before() {
    let desk =
        versions("9", VERSIONS).answers("*get-function-configuration*", "{\n \"A\": \"1\"\n}");

    let made = desk.make(&["rollback"]);

    assert!(made.succeeded, "{made:?}");
    assert!(made.stdout.contains("live is version 7 (aaa) instead of 9 (bbb)"), "{made:?}");
    let update = update(&desk).unwrap();
    assert!(update.contains("--name live --function-version 7 "), "{update}");
}

#[test]
fn rollback_to_other_variables_has_to_be_asked_for() {
    let stack = || {
        versions("9", VERSIONS)
            .answers(
                "*get-function-configuration*--qualifier 7*",
                "{\n \"A\": \"1\",\n \"B\": \"2\"\n}",
            )
            .answers("*get-function-configuration*", "{\n \"A\": \"0\",\n \"B\": \"2\"\n}")
    };
    let desk = stack();
    let refused = desk.make(&["rollback"]);
    assert!(!refused.succeeded && update(&desk).is_none(), "{refused:?}");
    assert!(refused.stderr.contains("other values of: A\n"), "{refused:?}");
    assert!(refused.stderr.contains("make rollback TO=7"), "{refused:?}");

    let desk = stack();
    let asked = desk.make(&["rollback", "TO=7"]);
    assert!(
        asked.succeeded && update(&desk).unwrap().contains("--function-version 7 "),
        "{asked:?}"
    );
}

#[test]
fn rollback_to_the_live_version_or_to_none_changes_nothing() {
    for (version, says) in [("9", "is live already"), ("77", "has no version 77")] {
        let desk = versions("9", VERSIONS);
        let made = desk.make(&["rollback", &format!("TO={version}")]);
        assert!(made.stdout.contains(says) || made.stderr.contains(says), "{made:?}");
        assert_eq!(made.succeeded, version == "9");
        assert_eq!(update(&desk), None);
    }
}

#[test]
fn rollback_says_so_if_there_is_nothing_to_go_back_to() {
    let desk = versions("9", "8\tbbb\n9\tbbb\n10\tccc");

    let made = desk.make(&["rollback"]);

    assert!(!made.succeeded && made.stderr.contains("no version of another commit"), "{made:?}");
    assert_eq!(update(&desk), None);
}

#[test]
fn configure_changes_what_it_is_given_publishes_a_version_and_keeps_the_rest() {
    let desk = versions("9", VERSIONS);

    let made = desk.make(&["configure", "PARAMETERS='A=https://{cell}/x?y=1'"]);

    assert!(made.succeeded, "{made:?}");
    let update = update(&desk).unwrap();
    let (before, release) =
        update.split_once(r#"{"ParameterKey":"Release","ParameterValue":""#).unwrap();
    assert!(release.starts_with(|digit: char| digit.is_ascii_digit()), "{update}");
    let parameters = concat!(
        r#"[{"ParameterKey":"A","ParameterValue":"https://{cell}/x?y=1"},"#,
        r#"{"ParameterKey":"RepairEnabled","UsePreviousValue":true},"#,
    );
    assert!(before.ends_with(parameters), "{update}");
    assert!(desk.calls().contains("wait stack-update-complete"));
}

#[test]
fn configure_after_a_rollback_publishes_nothing() {
    let desk = versions("7", VERSIONS);

    let made = desk.make(&["configure", "PARAMETERS=RepairEnabled=false"]);

    assert!(made.succeeded && made.stderr.contains("rolled back from version 9 to 7"), "{made:?}");
    let update = update(&desk).unwrap();
    assert!(update.contains(r#"{"ParameterKey":"Release","UsePreviousValue":true}"#), "{update}");
    assert!(
        update.contains(r#"{"ParameterKey":"RepairEnabled","ParameterValue":"false"}"#),
        "{update}"
    );
}

#[test]
fn configure_refuses_a_parameter_that_the_stack_does_not_have() {
    let desk = versions("9", VERSIONS);

    let made = desk.make(&["configure", "PARAMETERS=RepairEnable=false"]);

    assert!(!made.succeeded && made.stderr.contains("no parameter RepairEnable\n"), "{made:?}");
    assert_eq!(update(&desk), None);
}
