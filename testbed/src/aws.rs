//! The region and the account of the stand-ins for AWS.

pub const REGION: &str = "us-east-1";

pub const ACCOUNT_ID: &str = "000000000000";
