//! Where the stand-ins of AWS claim to be.

/// The region.
pub const REGION: &str = "us-east-1";

/// The account.
pub const ACCOUNT_ID: &str = "000000000000";
