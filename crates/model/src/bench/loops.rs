//! The whole SpecTemp loop on random weights, beside the same loop written plainly with HF transformers.
//!
//! Random weights write no segments and no answers. So each turn generates its tokens for real, all that it may, and the loop
//! is then told a line of a script instead of their text: three segments, then an answer. The peer gets the prompts, the
//! frames and the generated tokens of our run, turn by turn, and does the same work as the papers' scripts do it: every
//! turn prefills its whole context anew, questions come one after the other. Each run of ours starts with empty caches.

mod scripted;
mod stills;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::future::try_join_all;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use spectemp_engine::{Session, SessionError, Setup, Vlm};
use spectemp_types::{JobSpec, Plan, Question, Totals, VideoUri};
use tokio_util::sync::CancellationToken;

use self::scripted::{Scripted, Spoken};
use self::stills::Stills;
use super::ours::Clock;
use super::peer::{self, Peer};
use super::report::{Run, Times};
use super::served::runtime;
use super::sizes::{self, Size};
use crate::ModelError;
use crate::device::LoadOptions;
use crate::files::ModelFiles;
use crate::thread::DeviceThread;
use crate::vlm::QwenVlm;

/// Settings beside those of `paper16`: the tokens of a turn, which no grammar shortens.
const TURNS: [&str; 2] = ["max_new_tokens=64", "constrain=off"];
/// On the CPU also frames of 224 and 112 px.
const SMALL_FRAMES: [&str; 2] = ["target_pixels=50176", "draft_pixels=12544"];

/// What to measure.
#[derive(Clone, Debug)]
pub struct LoopOptions {
    /// Questions that are asked about the video at once; a row for each number.
    pub questions: Vec<usize>,
    /// Threads of both sides; 0 means one per core.
    pub threads: usize,
    /// Timed runs of each row. A run that warms up comes before those of the first.
    pub repeat: u32,
    /// Folder that keeps the checkpoints.
    pub cache: PathBuf,
    /// Whose tokenizer, chat template and prompts the target uses.
    pub target: ModelFiles,
    /// The same for the draft.
    pub draft: ModelFiles,
    /// A Python with torch and transformers; without it only ours is measured.
    pub python: Option<PathBuf>,
}

/// One number of questions.
#[derive(Clone, Debug, Serialize)]
pub struct LoopRow {
    /// Questions that were asked at once.
    pub questions: usize,
    /// Our times per question.
    pub ours: Times,
    /// What our last run came to, all questions together.
    pub totals: Totals,
    /// The peer's, where there is one.
    pub peer: Option<LoopComparison>,
}

/// A peer's times and how its tokens compare.
#[derive(Clone, Debug, Serialize)]
pub struct LoopComparison {
    /// Its times per question.
    pub times: Times,
    /// Its best time over ours.
    pub ratio_best: f64,
    /// The same of the medians.
    pub ratio_median: f64,
    /// What the ratio should reach on the CPU.
    pub reach: f64,
    /// Tokens that the peer, too, would have chosen after the same beginning, where it has the same weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub equal_tokens: Option<usize>,
    /// All generated tokens.
    pub tokens: usize,
}

/// All figures of a run.
#[derive(Clone, Debug, Serialize)]
pub struct LoopReport {
    /// Threads of both sides.
    pub threads: usize,
    /// Vector instructions that the kernels use here.
    pub instructions: String,
    /// The peer's versions, where there is one.
    pub peer: Option<String>,
    /// The plan with all settings.
    pub plan: Plan,
    /// Target and draft.
    pub models: [Size; 2],
    /// The figures.
    pub rows: Vec<LoopRow>,
}

/// What the peer gives back.
#[derive(Deserialize)]
struct PeerRun {
    #[serde(flatten)]
    run: Run,
    equal_tokens: usize,
}

/// Measures; `progress` is told what is being done.
///
/// # Errors
/// Where a checkpoint cannot be written or read, a loop does not end as scripted, or the peer fails.
pub fn run_loops(options: &LoopOptions, progress: &mut dyn FnMut(&str)) -> Result<LoopReport, ModelError> {
    let threads = crate::kernels::Threads::new(options.threads).count();
    let load = LoadOptions { threads: Some(threads), ..LoadOptions::default() };
    let mut folder = |size: Size, style: &ModelFiles| {
        progress(&format!("{size}: checkpoint in {}", options.cache.display()));
        sizes::prepare_for_loops(size, &options.cache, style)
    };
    let target = folder(TARGET, &options.target)?;
    let draft = folder(DRAFT, &options.draft)?;
    let settings = TURNS.iter().chain(&SMALL_FRAMES).copied().collect();
    let pair = Pair { target, draft, load, drawn: false, plan: plan(settings)? };
    let mut peer = match &options.python {
        Some(python) => Some(Peer::start(python, peer::LOOP, &[&pair.target, &pair.draft], threads)?),
        None => None,
    };
    let rows = pair.rows(peer.as_mut(), &options.questions, options.repeat, progress)?;
    Ok(LoopReport {
        threads,
        instructions: crate::kernels::instructions().to_owned(),
        peer: peer.map(|peer| peer.versions.clone()),
        plan: pair.plan,
        models: [TARGET, DRAFT],
        rows,
    })
}

const TARGET: Size = Size::M500;
const DRAFT: Size = Size::M60;

impl LoopRow {
    /// The figures in a line.
    fn summary(&self) -> String {
        let ours = format!("{} questions: {:.2} s each", self.questions, self.ours.best_ms / 1e3);
        match &self.peer {
            None => ours,
            Some(peer) => {
                format!("{ours}, peer {:.2} s, ratio {:.2}", peer.times.best_ms / 1e3, peer.ratio_best)
            }
        }
    }
}

/// `paper16` with frames of its own size.
pub(super) fn full_plan() -> Result<Plan, ModelError> {
    plan(TURNS.to_vec())
}

fn plan(settings: Vec<&str>) -> Result<Plan, ModelError> {
    let plan = Plan::named("paper16").and_then(|plan| plan.set_all(settings));
    plan.map_err(|error| failed(&error))
}

fn failed(error: &dyn std::fmt::Display) -> ModelError {
    ModelError::Source { model: "the loop under test".to_owned(), reason: error.to_string() }
}

/// Both checkpoints, and how they are asked.
pub(super) struct Pair {
    /// Folders.
    pub(super) target: PathBuf,
    pub(super) draft: PathBuf,
    pub(super) load: LoadOptions,
    /// Whether the folders hold no weights, and random ones are drawn on the device.
    pub(super) drawn: bool,
    pub(super) plan: Plan,
}

impl Pair {
    /// A row for each number of questions; what is timed first is warmed up first.
    pub(super) fn rows(
        &self,
        mut peer: Option<&mut Peer>,
        questions: &[usize],
        repeat: u32,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Vec<LoopRow>, ModelError> {
        let mut rows = Vec::new();
        for (number, &questions) in questions.iter().enumerate() {
            let warm_up = u32::from(number == 0);
            let row = self.row(peer.as_deref_mut(), questions, (warm_up, repeat))?;
            progress(&row.summary());
            rows.push(row);
        }
        Ok(rows)
    }

    fn row(
        &self,
        mut peer: Option<&mut Peer>,
        questions: usize,
        (warm_up, repeat): (u32, u32),
    ) -> Result<LoopRow, ModelError> {
        let (mut ours, mut theirs, mut totals, mut tokens) = (Vec::new(), Vec::new(), Totals::default(), 0);
        for round in 0..warm_up + repeat {
            let (run, sums, spoken) = self.ask(questions)?;
            let timed = round >= warm_up;
            (totals, tokens) = (sums, spoken.iter().flatten().map(|turn| turn.forced.len()).sum());
            if let Some(peer) = &mut peer {
                // One question warms up as well as all of them.
                let spoken = if timed { &spoken[..] } else { &spoken[..1] };
                let request = json!({ "work": "loop", "questions": spoken });
                theirs.extend(Some(peer.ask::<PeerRun>(&request)?).filter(|_| timed));
            }
            ours.extend(Some(run).filter(|_| timed));
        }
        let own = Times::new(&ours, questions);
        let runs: Vec<Run> = theirs.iter().map(|theirs| theirs.run.clone()).collect();
        let peer = theirs.last().map(|last| {
            let times = Times::new(&runs, questions);
            LoopComparison {
                ratio_best: times.best_ms / own.best_ms,
                ratio_median: times.median_ms / own.median_ms,
                reach: if questions == 1 { 2.0 } else { 4.0 },
                equal_tokens: (!self.drawn).then_some(last.equal_tokens),
                tokens,
                times,
            }
        });
        Ok(LoopRow { questions, ours: own, totals, peer })
    }

    /// Asks so many questions at once, with empty caches: time, sums, and what was said in each.
    fn ask(&self, questions: usize) -> Result<(Run, Totals, Vec<Vec<Spoken>>), ModelError> {
        let thread = DeviceThread::start(&self.load, None)?;
        let load = |folder: &Path| -> Result<Arc<QwenVlm>, ModelError> {
            let files = ModelFiles::folder(folder);
            Ok(Arc::new(match self.drawn {
                true => QwenVlm::drawn_on(&thread, &files, &self.load)?,
                false => QwenVlm::load_on(&thread, &files, &self.load)?,
            }))
        };
        let (target, draft) = (load(&self.target)?, load(&self.draft)?);
        let scripts: Vec<Arc<Scripted>> =
            (0..questions).map(|number| Arc::new(Scripted::new(&target, &draft, number))).collect();
        let start = Clock::start();
        let loops = scripts.iter().enumerate().map(|(number, script)| answer(number, script, &self.plan));
        let totals = runtime()?.block_on(try_join_all(loops)).map_err(|error| failed(&error))?;
        let (seconds, cpu_seconds) = start.elapsed();
        let mut sums = Totals::default();
        for totals in totals {
            sums.rounds += totals.rounds;
            sums.target_frames += totals.target_frames;
            sums.draft_frames += totals.draft_frames;
            sums.tokens += totals.tokens;
            sums.times += totals.times;
        }
        let spoken = scripts.iter().map(|script| script.spoken()).collect();
        Ok((Run { seconds, cpu_seconds, ..Run::default() }, sums, spoken))
    }
}

/// One job, from its first round to its answer.
async fn answer(number: usize, script: &Arc<Scripted>, plan: &Plan) -> Result<Totals, SessionError> {
    let text = format!("What happens in scene {number}?");
    let wrong = |cause: &dyn std::fmt::Display| SessionError::Resume(cause.to_string());
    let spec = JobSpec {
        id: format!("q{number}"),
        video: VideoUri::parse("bench.mp4").map_err(|error| wrong(&error))?,
        question: Question::new(text, Vec::new()).map_err(|error| wrong(&error))?,
        plan: plan.clone(),
    };
    let (target, draft): (Arc<dyn Vlm>, Arc<dyn Vlm>) = (script.target(), script.draft());
    let frames = Arc::new(Stills);
    let setup = Setup { spec, target, draft: Some(draft), frames, cancel: CancellationToken::new() };
    let mut session = Session::new(setup, Vec::new())?;
    while session.next_round().await?.is_some() {}
    let totals = session.finish()?.totals;
    if totals.rounds != Scripted::ROUNDS {
        return Err(wrong(&format!("{} rounds instead of {}", totals.rounds, Scripted::ROUNDS)));
    }
    Ok(totals)
}

/// For the peer.
impl Serialize for Spoken {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { model, ids, side, colours, forced } = self;
        let value: Value =
            json!({ "model": model, "ids": ids, "side": side, "colours": colours, "forced": forced });
        value.serialize(serializer)
    }
}
