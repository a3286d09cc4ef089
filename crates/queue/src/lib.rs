//! The doorbell: ring and wait, over Redis or in memory; housekeeping tasks and their cron.
