//! The Makefile's targets for AWS, with an `aws` that answers by a script or asks the stand-ins.

mod desk;
mod reconcile;
