//! `make status` and `make doctor`.

use crate::desk::Desk;

#[test]
fn status_shows_what_the_services_say_and_what_could_not_be_had_does_not_hide_the_rest() {
    let desk = Desk::of("prod")
        .answers(
            "aws cloudwatch describe-alarms --state-value ALARM --alarm-name-prefix \
             prod-ecom-settings-exporter- --query MetricAlarms* --output text",
            "prod-ecom-settings-exporter-keys-missing\t12:00\tKeys are missing.",
        )
        .answers(
            "aws lambda get-function --qualifier live --function-name the-function *",
            "9\tabc",
        )
        .answers("aws lambda get-function-concurrency --function-name the-function *", "0")
        .answers(
            "aws stepfunctions list-executions * --state-machine-arn arn:machine --query *",
            "",
        )
        .answers("aws cloudformation describe-stacks * Stacks?0?.?StackStatus*", "UPDATE_COMPLETE")
        .answers("aws cloudformation describe-stacks * sort_by*", "DefaultCell\tc\nRelease\t1");

    let ended = desk.make(&["status"]);

    for line in [
        "alarms                   prod-ecom-settings-exporter-keys-missing 12:00 Keys are missing.\n",
        "stack                    UPDATE_COMPLETE\nlive                     9 abc\n",
        "concurrency              0\nstream                   NOT KNOWN: aws, exit status: 255: no",
        "reconciles               none\n",
        "parameters               DefaultCell c\n                         Release 1\n",
    ] {
        assert!(ended.stdout.contains(line), "{line}: {}", ended.stdout);
    }
    assert!(
        ended.stdout.lines().all(|line| line.len() <= 100 || !line.contains("  ")),
        "{ended:?}"
    );
    assert!(!ended.stdout.contains(['\u{1b}', '\u{202e}']), "{ended:?}");
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

#[test]
fn doctor_tries_each_right_that_can_be_tried_without_a_change() {
    let desk = Desk::of("prod").answers("aws *", "fine");
    let ended = desk.make(&["doctor"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let calls = desk.calls();
    assert_eq!(calls.len(), 8, "{calls:?}");
    let reads = ["get-", "list", "describe-", "filter-", "--version", "--invocation-type DryRun"];
    for call in calls {
        assert!(reads.iter().any(|read| call.contains(read)), "{call}");
        assert!(call.ends_with(" --output text") && !call.contains('{'), "{call}");
    }
    let failed = Desk::new().with("ENVIRONMENT", "prod").operator(&["doctor"]);
    assert_eq!((failed.code, failed.stdout.matches("NOT KNOWN").count()), (Some(1), 8));
}
