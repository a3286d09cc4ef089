//! The nouns of spectemp: ids, video URIs, questions, settings, rounds, traces, answers. No I/O.

mod answer;
mod figures;
mod ids;
mod job;
mod job_text;
mod line;
mod moment;
mod question;
mod round;
mod settings;
mod span;
mod trace;
mod uri;

pub use answer::{Answer, Evidence};
pub use figures::{IoFigures, StageTimes, TokenCounts};
pub use ids::{BatchId, JobId, VideoId};
pub use job::{Fingerprint, JobSpec, JobStatus, UnknownStatus};
pub use job_text::{JobText, JobTextError, MAX_ID_BYTES, PlanDefaults};
pub use line::{Line, LineSplitter, MAX_LINE_BYTES};
pub use moment::{MomentError, moment_text, parse_moment};
pub use question::{Question, QuestionError};
pub use round::{
    Chooser, DenseSample, Fallback, FrameRef, Round, Stage, StageSpan, Turn, TurnFinish, TurnKind, TurnRole,
    Verdict,
};
pub use settings::{Constrain, FinalAnswer, History, Plan, PlanError, Scaler, Settings, Strategy};
pub use span::TimeSpan;
pub use trace::{ModelRevision, Totals, Trace, TraceVideo};
pub use uri::{UriError, VideoUri};
