//! The region, the account and the function of the stand-ins for AWS.

pub const REGION: &str = "us-east-1";

pub const ACCOUNT_ID: &str = "000000000000";

pub const FUNCTION: &str = "ecom-settings-exporter";
