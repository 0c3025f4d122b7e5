//! The region and the account of the stand-ins for AWS.

/// The region.
pub const REGION: &str = "us-east-1";

/// The account.
pub const ACCOUNT_ID: &str = "000000000000";
