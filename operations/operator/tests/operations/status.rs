//! `make status`.

use serde_json::json;

use crate::desk::Desk;

fn desk() -> Desk {
    let outputs = [
        ("FunctionName", "the-function"),
        ("StateMachineArn", "arn:machine"),
        ("StreamMappingId", "mapping-1"),
        ("OnFailureQueueUrl", "https://queue"),
    ];
    let outputs = outputs.map(|(name, value)| json!({"OutputKey": name, "OutputValue": value}));
    let parameters =
        [("MemoryMegabytes", "256"), ("DefaultCell", "cell-1"), ("TableKmsKeyArn", "")];
    let parameters =
        parameters.map(|(name, value)| json!({"ParameterKey": name, "ParameterValue": value}));
    let stacks = json!({"Stacks": [{
        "StackStatus": "UPDATE_COMPLETE", "LastUpdatedTime": "2026-11-22T10:00:00Z",
        "Tags": [{"Key": "commit", "Value": "abc"}], "Outputs": outputs, "Parameters": parameters,
    }]});
    let live = json!({
        "Configuration": {"Version": "9", "Description": "abc", "LastModified": "2026-11-22"},
        "Concurrency": {"ReservedConcurrentExecutions": 0},
    });
    let alarm = json!({
        "AlarmName": "prod-ecom-settings-exporter-keys-missing", "StateUpdatedTimestamp": "12:00",
        "AlarmDescription": "Keys are missing. docs/runbook/keys-missing.md",
    });
    let mapping =
        json!({"State": "Enabled", "LastProcessingResult": "OK", "ParallelizationFactor": 4});
    let execution = json!({"startDate": "11:45", "status": "SUCCEEDED", "name": "scheduled"});
    Desk::new()
        .with("ENVIRONMENT", "prod")
        .answers("aws cloudformation describe-stacks *", stacks.to_string())
        .answers("aws lambda get-function --function-name the-function *live *", live.to_string())
        .answers("*--uuid mapping-1 *", mapping.to_string())
        .answers(
            "aws cloudwatch describe-alarms *--alarm-name-prefix prod-ecom-settings-exporter- *",
            json!({"MetricAlarms": [alarm]}).to_string(),
        )
        .answers("*list-executions *arn:machine*", json!({"executions": [execution]}).to_string())
}

#[test]
fn status_shows_what_rings_first_in_a_screen_and_asks_each_service_once_or_twice() {
    let queue = json!({"Attributes": {"ApproximateNumberOfMessages": "3"}});
    let desk = desk()
        .answers("aws sqs get-queue-attributes *https://queue *", queue.to_string())
        .answers("aws scheduler get-schedule *", r#"{"State": "ENABLED"}"#);

    let made = desk.make(&["status"]);

    assert!(made.succeeded, "{made:?}");
    assert_eq!(
        made.stdout,
        "RINGS             keys-missing since 12:00\n                  \
         Keys are missing. docs/runbook/keys-missing.md\n\
         stack             UPDATE_COMPLETE, changed 2026-11-22T10:00:00Z, commit abc\n\
         live              version 9 (abc) of 2026-11-22, concurrency 0: NOTHING RUNS\n\
         stream            Enabled, OK, 4 batches of a shard at a time\n\
         schedule          ENABLED, ,\n\
         reconciles        11:45 SUCCEEDED scheduled\n\
         on-failure queue  3 messages\n\
         parameters        DefaultCell=cell-1 MemoryMegabytes=256\n"
    );
    let calls = desk.calls();
    let services: Vec<&str> = calls.lines().map(|call| call.split(' ').nth(1).unwrap()).collect();
    for service in &services {
        let times = services.iter().filter(|one| *one == service).count();
        assert!(times <= 2, "{service}: {services:?}");
    }
}

#[test]
fn what_can_not_be_had_does_not_hide_the_rest() {
    let made = desk().make(&["status"]);
    assert!(made.succeeded && made.stdout.contains("version 9"), "{made:?}");
    assert!(made.stdout.contains("schedule          not known: no answer for: aws scheduler"));
}
