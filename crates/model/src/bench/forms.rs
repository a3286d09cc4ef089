//! What holding a turn to its form costs per token, beside a step of decoding in the same run.
//!
//! A token is drawn from made-up logits of the published vocabulary's width, as decoding does it: with the form's mask, and
//! without. The tokenizer is the demonstration's with made-up words up to that width, so that the trie that is walked has
//! the published size.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use serde_json::{Value, json};
use spectemp_engine::{AnswerForm, Decimal, Ending, Grammar, Request, Times};

use super::Work;
use super::ours::Ours;
use super::served::request;
use super::sizes::{self, Size};
use crate::constrain::Constrainer;
use crate::files::ModelFiles;
use crate::tokenizer::Tokenizer;
use crate::writer::Writer;
use crate::{DTypeChoice, ModelError};

/// Ids from here on are the model's own, as in the published vocabulary.
const WORDS: usize = 151_643;
/// Tokens of a turn, and of its thought.
const TURN: u32 = 128;
const THOUGHT: u32 = 96;
/// Rows of logits that are gone through in turns.
const ROWS: usize = 8;

/// What to measure.
#[derive(Clone, Debug)]
pub struct FormsOptions {
    /// What the weights of the compared step are held as; a step for each.
    pub dtypes: Vec<DTypeChoice>,
    /// Threads of the step; 0 means one per core. Drawing for one sequence uses one.
    pub threads: usize,
    /// Turns of each form; the shortest counts.
    pub repeat: u32,
    /// Folder that keeps the checkpoints.
    pub cache: PathBuf,
    /// The tokenizer.json that is widened.
    pub tokenizer: Vec<u8>,
}

/// A form of a turn.
#[derive(Clone, Debug, Serialize)]
pub struct FormRow {
    /// Which.
    pub form: &'static str,
    /// Milliseconds until a generation that is held to it can begin.
    pub begin_ms: f64,
    /// Microseconds that drawing a token takes without a form.
    pub free_us: f64,
    /// The same with the form.
    pub held_us: f64,
    /// What the form adds to a token, in percent of each step.
    pub percent_of_step: Vec<f64>,
}

/// A step that writes one token of one sequence.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// What the weights are held as.
    pub dtype: String,
    /// Its milliseconds.
    pub ms: f64,
}

/// All figures of a run.
#[derive(Clone, Debug, Serialize)]
pub struct FormsReport {
    /// Width of the logits.
    pub vocab: usize,
    /// Milliseconds that a tokenizer takes to be made ready, once per model.
    pub prepare_ms: f64,
    /// The model that the steps are of.
    pub size: Size,
    /// Its steps.
    pub steps: Vec<Step>,
    /// The forms.
    pub rows: Vec<FormRow>,
}

/// Measures; `progress` is told what is being done.
///
/// # Errors
/// Where a checkpoint or the tokenizer cannot be made, or a form is not written to its end.
pub fn run_forms(options: &FormsOptions, progress: &mut dyn FnMut(&str)) -> Result<FormsReport, ModelError> {
    let size = Size::M500;
    let vocab = size.vocab();
    let files = widened(options)?;
    let tokenizer = Arc::new(Tokenizer::open(&files)?);
    let start = Instant::now();
    let constrainer = Arc::new(Constrainer::new(Arc::clone(&tokenizer), vocab)?);
    let prepare_ms = ms(start);
    let steps = options.dtypes.iter().map(|&dtype| {
        progress(&format!("{size} in {dtype}: a step"));
        step(options, size, dtype)
    });
    let steps = steps.collect::<Result<Vec<_>, _>>()?;
    let logits: Vec<Vec<f32>> = (0..ROWS as u32).map(|row| made_up_logits(vocab, row)).collect();
    let mut report = FormsReport { vocab, prepare_ms, size, steps, rows: Vec::new() };
    for (form, grammar) in forms() {
        progress(form);
        let mut times = [f64::INFINITY; 3];
        for _ in 0..options.repeat.max(1) {
            let run = turn(&constrainer, &tokenizer, &grammar, &logits)?;
            times.iter_mut().zip(run).for_each(|(best, time)| *best = best.min(time));
        }
        let [begin_ms, free_us, held_us] = times;
        let percent = |step: &Step| (held_us - free_us) / step.ms / 10.0;
        let percent_of_step = report.steps.iter().map(percent).collect();
        report.rows.push(FormRow { form, begin_ms, free_us, held_us, percent_of_step });
    }
    Ok(report)
}

/// The turns of the loop: a target's, with its two ways to end and a question's options, and a draft's.
fn forms() -> [(&'static str, Grammar); 3] {
    let times = Times {
        first: Decimal { units: 35_999, decimals: 1 },
        second: Decimal { units: 36_000, decimals: 1 },
    };
    let options = ["a red lorry", "a blue car", "a man on a bicycle", "nobody"].map(str::to_owned).to_vec();
    let labels = (0..64).map(|frame| format!("{}.5", 1200 + frame)).collect();
    [
        ("answer or segment", vec![Ending::Answer(AnswerForm::Free), Ending::Segment(times)]),
        ("option or segment", vec![Ending::Answer(AnswerForm::Options(options)), Ending::Segment(times)]),
        ("frames of 64", vec![Ending::Frames { labels, most: 3 }]),
    ]
    .map(|(name, endings)| (name, Grammar { endings }))
}

/// One turn with its form and as long a one without: milliseconds to begin, microseconds of a token without and with it.
fn turn(
    constrainer: &Arc<Constrainer>,
    tokenizer: &Arc<Tokenizer>,
    grammar: &Grammar,
    logits: &[Vec<f32>],
) -> Result<[f64; 3], ModelError> {
    let request = Request { think_tokens: THOUGHT, ..request(Vec::new(), TURN as usize) };
    let eos: Arc<[u32]> = Arc::from([]);
    let start = Instant::now();
    let constraint = constrainer.constraint(grammar, &request)?;
    let mut held = Writer::new(&request, tokenizer, &eos, Some(constraint))?;
    let begin_ms = ms(start);
    let held_us = write(&mut held, &request, logits)?;
    let written = held.finish()?;
    if !written.text.ends_with('>') {
        let reason = format!("a turn did not come to its end: {:?}", written.text);
        return Err(ModelError::Source { model: "the form under test".to_owned(), reason });
    }
    let mut free = Writer::new(&request, tokenizer, &eos, None)?;
    Ok([begin_ms, write(&mut free, &request, logits)?, held_us])
}

/// Microseconds per token.
fn write(writer: &mut Writer, request: &Request, logits: &[Vec<f32>]) -> Result<f64, ModelError> {
    let start = Instant::now();
    for row in logits.iter().cycle() {
        if writer.is_finished() {
            break;
        }
        writer.take(row, request)?;
    }
    Ok(ms(start) * 1e3 / writer.ids().len().max(1) as f64)
}

fn step(options: &FormsOptions, size: Size, dtype: DTypeChoice) -> Result<Step, ModelError> {
    let folder = options.cache.join(size.folder());
    sizes::prepare(size, &folder, &options.tokenizer)?;
    let threads = crate::kernels::Threads::new(options.threads).count();
    let mut ours = Ours::load(&folder, threads, dtype)?;
    let work = Work::Decode { tokens: 32, context: 512, batch: 1 };
    let mut best = f64::INFINITY;
    for _ in 0..3 {
        best = best.min(ours.run(&work)?.seconds * 1e3 / 32.0);
    }
    Ok(Step { dtype: dtype.to_string(), ms: best })
}

/// The tokenizer with made-up words, in a folder.
fn widened(options: &FormsOptions) -> Result<ModelFiles, ModelError> {
    const FILE: &str = "tokenizer.json";
    let mut json: Value =
        serde_json::from_slice(&options.tokenizer).map_err(|error| ModelError::broken(FILE, error))?;
    let added = json["added_tokens"].as_array().cloned().unwrap_or_default();
    let Some(words) = json["model"]["vocab"].as_object_mut() else {
        return Err(ModelError::broken(FILE, "it has no model.vocab"));
    };
    // Words stand behind them: a vocabulary has no holes.
    for token in &added {
        if let Some(content) = token["content"].as_str() {
            words.entry(content).or_insert_with(|| token["id"].clone());
        }
    }
    let taken: HashSet<u64> = words.values().filter_map(Value::as_u64).collect();
    let mut made_up = (0..).map(made_up_word);
    for id in (0..WORDS).filter(|&id| !taken.contains(&(id as u64))) {
        let Some(word) = made_up.find(|word| !words.contains_key(word)) else { break };
        words.insert(word, json!(id));
    }
    let folder = options.cache.join("forms-1");
    std::fs::create_dir_all(&folder).map_err(|source| sizes::read_error(&folder, source))?;
    sizes::write(&folder, FILE, json.to_string().as_bytes())?;
    Ok(ModelFiles::folder(&folder))
}

/// Syllables, half of the words behind a blank, in the spelling of byte-level tokenizers.
fn made_up_word(number: usize) -> String {
    const ONSETS: [&str; 12] = ["b", "d", "f", "k", "l", "m", "n", "p", "r", "s", "t", "st"];
    const VOWELS: [&str; 6] = ["a", "e", "i", "o", "u", "ea"];
    let mut word = if number.is_multiple_of(2) { "Ġ".to_owned() } else { String::new() };
    let mut rest = number / 2 + 1;
    while rest > 0 {
        word += ONSETS[rest % ONSETS.len()];
        rest /= ONSETS.len();
        word += VOWELS[rest % VOWELS.len()];
        rest /= VOWELS.len();
    }
    word
}

/// Logits between -8 and 8 that look random.
fn made_up_logits(vocab: usize, row: u32) -> Vec<f32> {
    let value = |id: u32| {
        let mixed = (id ^ row << 20).wrapping_mul(2_654_435_761);
        (mixed ^ mixed >> 15).wrapping_mul(2_246_822_519) >> 8
    };
    (0..vocab as u32).map(|id| value(id) as f32 / (1 << 20) as f32 - 8.0).collect()
}

fn ms(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_many_and_logits_differ() {
        let words: HashSet<String> = (0..200_000).map(made_up_word).collect();
        assert!(words.len() > WORDS, "{}", words.len());
        let logits = made_up_logits(10_000, 3);
        assert!(logits.iter().all(|logit| (-8.0..=8.0).contains(logit)));
        assert_ne!(crate::sample::argmax(&logits), crate::sample::argmax(&made_up_logits(10_000, 4)));
    }
}
