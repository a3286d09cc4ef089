//! The cluster's parts, and what the ledger says at the end.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use spectemp_store::{JobFilter, Ledger, LedgerOptions};
use tokio::runtime::Runtime;

use super::{CONCURRENCY, Size, s3::S3Server, servers::Servers};
use crate::{
    generations::{answer, essence},
    support::{Place, address, jobs, pair, with_pair},
};

/// The batch under test.
const BATCH: &str = "crash";

/// Servers, bucket, videos and jobs.
pub(crate) struct Setting {
    pub(crate) place: Place,
    pub(crate) servers: Servers,
    pub(crate) s3: S3Server,
    pub(crate) videos: usize,
    jobs: Vec<Value>,
    pair: Vec<String>,
    runtime: Runtime,
    ledger: Ledger,
}

/// What an undisturbed run on one machine came to.
pub(crate) struct Reference {
    pub(crate) answers: BTreeMap<String, Value>,
    pub(crate) rounds: BTreeMap<(String, u64), Value>,
    pub(crate) took: Duration,
}

impl Setting {
    pub(crate) fn new(size: &Size) -> Self {
        let place = Place::new();
        let videos = place.videos(&size.seconds, size.questions);
        let bucket = place.path("s3/archive");
        std::fs::create_dir_all(&bucket).unwrap();
        for video in &videos {
            std::fs::copy(&video.path, bucket.join(video.path.file_name().unwrap())).unwrap();
        }
        let mut jobs = in_all_ways(&jobs(&videos), &size.max_rounds);
        // The questions of one video are not neighbours in the file, so that siblings have to be found.
        jobs.sort_by_key(|job| job["id"].as_str().unwrap().chars().rev().collect::<String>());
        jobs.truncate(size.jobs);
        assert_eq!(jobs.len(), size.jobs);
        let (servers, s3) = (Servers::start(), S3Server::start(&place.path("s3")));
        let runtime = Runtime::new().unwrap();
        let migrated = place.run(&["migrate", "--database-url", &servers.postgres]);
        assert_eq!(migrated.code, Some(0), "{}", migrated.stderr);
        let ledger = runtime.block_on(Ledger::connect(&servers.postgres, &LedgerOptions::default())).unwrap();
        Self { videos: videos.len(), place, servers, s3, jobs, pair: pair(), runtime, ledger }
    }

    /// The same jobs on the local files, by `spectemp run`.
    pub(crate) fn undisturbed(&self) -> Reference {
        let file = self.place.write_jobs("local.jsonl", &self.jobs);
        let started = Instant::now();
        let args = ["run", &file, "--results", "undisturbed", "--concurrency", "4"];
        let done = self.place.run(&with_pair(&args, &self.pair));
        assert_eq!(done.code, Some(0), "{}", done.stderr);
        let took = started.elapsed();
        let id = |row: &Value| row["id"].as_str().unwrap().to_owned();
        let rows = self.place.results("undisturbed", "answers.jsonl");
        let rounds = self.place.sql("select id, round, json from rounds");
        let round = |row: &Value| {
            let round: Value = serde_json::from_str(row["json"].as_str().unwrap()).unwrap();
            ((id(row), row["round"].as_u64().unwrap()), essence(&round))
        };
        Reference {
            answers: rows.iter().map(|row| (id(row), answer(row))).collect(),
            rounds: rounds.iter().map(round).collect(),
            took,
        }
    }

    /// Submits the jobs over REST.
    pub(crate) fn submit(&self) {
        let in_bucket = |job: &Value| {
            let name = Path::new(job["video"].as_str().unwrap()).file_name().unwrap().to_str().unwrap();
            let mut job = job.clone();
            job["video"] = json!(format!("s3://archive/{name}"));
            job
        };
        let jobs: Vec<Value> = self.jobs.iter().map(in_bucket).collect();
        let file = self.place.write_jobs("cluster.jsonl", &jobs);
        let log = self.place.path("serve.log");
        let mut serve = self.start(&["serve", "--listen", "127.0.0.1:0"], &log);
        let server = address(&mut serve, &log);
        let submitted =
            self.place.run(&["submit", &file, "--batch", BATCH, "--plan", "demo", "--server", &server]);
        crate::support::signal(&serve, "TERM");
        let ended = serve.wait().unwrap();
        assert_eq!(submitted.code, Some(0), "{}", submitted.stderr);
        assert!(ended.success(), "serve ended with {ended}");
        assert_eq!(self.waiting(), self.jobs.len() as u64);
    }

    /// Starts a worker with leases of three seconds.
    pub(crate) fn worker(&self, log: &Path) -> Child {
        let concurrency = CONCURRENCY.to_string();
        let args = ["worker", "--concurrency", &concurrency, "--lease-s", "3", "-vv", "--log-json"];
        self.start(&with_pair(&args[..], &self.pair[..4]), log)
    }

    fn start(&self, args: &[&str], log: &Path) -> Child {
        let mut command: Command = self.place.command(args);
        let cluster = [
            ("SPECTEMP_DATABASE_URL", self.servers.postgres.as_str()),
            ("SPECTEMP_REDIS_URL", self.servers.redis.as_str()),
            ("SPECTEMP_OBJECTS", "s3://archive/results/"),
            ("SPECTEMP_ALLOW", "s3://archive/"),
        ];
        command.envs(cluster).envs(self.s3.environment());
        let log = std::fs::File::create(log).unwrap();
        command.stdout(Stdio::null()).stderr(log).spawn().unwrap()
    }

    fn counts(&self) -> spectemp_store::Counts {
        // Postgres may be restarting just now.
        for _ in 0..100 {
            if let Ok(counts) = self.runtime.block_on(self.ledger.counts_of(None, Some(BATCH))) {
                return counts;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("the ledger cannot be read");
    }

    /// Jobs that have not ended.
    pub(crate) fn waiting(&self) -> u64 {
        let counts = self.counts();
        assert_eq!((counts.failed, counts.cancelled), (0, 0), "{counts:?}: {:?}", self.failures());
        counts.queued + counts.running
    }

    fn failures(&self) -> Vec<String> {
        let page = self.runtime.block_on(self.ledger.failures(BATCH, None, 10)).unwrap();
        page.rows.into_iter().map(|row| format!("{}: {:?}", row.job.spec.id, row.job.error)).collect()
    }

    /// All answers by the user's id, without what timing and caches decide.
    pub(crate) fn answers(&self) -> BTreeMap<String, Value> {
        let filter = JobFilter { batch: Some(BATCH), ..JobFilter::default() };
        let page = self.runtime.block_on(self.ledger.answers_of(&filter, None, 10_000)).unwrap();
        let counts = self.counts();
        assert_eq!(page.rows.len() as u64, counts.answered, "one answer per answered job");
        let row = |row: &spectemp_store::AnsweredJob| {
            let given = &row.answer.answer;
            let shown = json!({
                "id": row.job.spec.id, "answer": given.text, "choice": given.choice, "evidence": given.evidence,
                "totals": row.answer.totals,
            });
            (row.job.spec.id.clone(), answer(&shown))
        };
        page.rows.iter().map(row).collect()
    }

    /// All committed rounds by the user's id.
    pub(crate) fn rounds(&self) -> BTreeMap<(String, u64), Value> {
        let mut all = BTreeMap::new();
        for (id, job) in self.ids() {
            for round in self.runtime.block_on(self.ledger.rounds(job)).unwrap() {
                all.insert((id.clone(), u64::from(round.no)), serde_json::to_value(&round).unwrap());
            }
        }
        all
    }

    fn ids(&self) -> HashMap<String, spectemp_types::JobId> {
        let filter = JobFilter { batch: Some(BATCH), ..JobFilter::default() };
        let page = self.runtime.block_on(self.ledger.jobs(&filter, None, 10_000)).unwrap();
        page.rows.into_iter().map(|job| (job.spec.id, job.id)).collect()
    }

    /// Every answer's trace lies in the bucket and is about it.
    pub(crate) fn assert_traces(&self) {
        let filter = JobFilter { batch: Some(BATCH), ..JobFilter::default() };
        let page = self.runtime.block_on(self.ledger.answers_of(&filter, None, 10_000)).unwrap();
        for row in page.rows {
            let key = format!("s3/archive/results/traces/{}/{}.json", row.job.id, row.answer.epoch);
            let text = std::fs::read_to_string(self.place.path(&key))
                .unwrap_or_else(|cause| panic!("{key}: {cause}"));
            let trace: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(trace["answer"]["answer"], json!(row.answer.answer.text), "{key}");
        }
    }
}

/// Each job once with each number of rounds at most.
fn in_all_ways(jobs: &[Value], max_rounds: &[u32]) -> Vec<Value> {
    let with = |job: &Value, rounds: u32| {
        let mut job = job.clone();
        job["id"] = json!(format!("{}-{rounds}", job["id"].as_str().unwrap()));
        job["set"] = json!({ "max_rounds": rounds });
        job
    };
    jobs.iter().flat_map(|job| max_rounds.iter().map(move |rounds| with(job, *rounds))).collect()
}
