//! The doorbell: ring and wait, over Redis or in memory; housekeeping tasks and their cron; rate limits.
//!
//! The ledger is the truth and the only lease. A ring says "look", never "do": it may be lost, come late or come
//! twice. Whoever waits looks into the ledger after every wake-up and after every timeout, so that losing all of
//! Redis costs time and nothing else.
//!
//! Over Redis both the doorbell and the tasks run as [apalis](apalis::prelude) workers on a small backend of our own (a
//! bounded list, taken from by a blocking pop) instead of on apalis-redis's storage, because that one
//!
//! * moves every push through a set sorted by whole seconds of the *sender's* clock (a clock that runs ahead by two
//!   seconds delays a wake-up by two seconds) and moves due ones in one `unpack`, which fails for good beyond some
//!   8,000 waiting messages;
//! * keeps done messages and the names of gone workers for ever;
//! * ends its worker when Redis restarts, and can only be polled.
//!
//! Attempts, priorities, results, idempotency keys and abandoned messages of the queue are not used at all.

mod cron;
mod doorbell;
mod error;
mod housekeeping;
mod limiter;
mod link;
mod list;
mod message;

pub use cron::Cron;
pub use doorbell::{Doorbell, DoorbellState, RedisOptions, Woken};
pub use error::QueueError;
pub use housekeeping::Housekeeping;
pub use limiter::{Limit, Limiter};
pub use message::Task;
