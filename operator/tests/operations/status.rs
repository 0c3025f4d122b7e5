//! `make status`.

use crate::desk::Desk;

#[test]
fn status_shows_what_there_is_even_if_a_part_cannot_be_had() {
    let desk = Desk::new()
        .with("ENVIRONMENT", "prod")
        .answers("aws lambda get-alias *", "9")
        .answers("*OutputKey==*", "an-output")
        .answers("aws cloudwatch describe-alarms *--alarm-name-prefix prod-ecom-*", "prod-ringing")
        .answers("aws sqs get-queue-attributes *", "3");

    let made = desk.make(&["status"]);

    assert!(made.succeeded, "{made:?}");
    for part in ["Version that is live\n9\n", "queue\n3\n", "Schedule of reconcile", "prod-ringing"]
    {
        assert!(made.stdout.contains(part), "{part}: {made:?}");
    }
    assert!(made.stderr.contains("no answer for: aws scheduler get-schedule"), "{made:?}");
}
