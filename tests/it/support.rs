//! The real program, a home of its own per test, and small real videos of the demonstration domain.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use spectemp_demo::{Archive, ArchiveOptions, DemoVideo, SIDE};
use spectemp_video::encode::{EncodeOptions, Encoder, FrameRate, Preset};

/// The `spectemp` binary: `SPECTEMP_BIN`, or the one that was built beside this test.
pub(crate) fn spectemp() -> PathBuf {
    let path = std::env::var_os("SPECTEMP_BIN").map(PathBuf::from).unwrap_or_else(|| {
        let test = std::env::current_exe().unwrap();
        test.parent().and_then(Path::parent).unwrap().join("spectemp")
    });
    assert!(
        path.is_file(),
        "{} is missing: build it first (cargo build -p spectemp-cli), or name one with SPECTEMP_BIN",
        path.display()
    );
    path
}

/// The demonstration pair in the repository.
pub(crate) fn model(role: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/demo").join(role);
    assert!(path.join("config.json").is_file(), "{} is missing", path.display());
    path.canonicalize().unwrap().to_str().unwrap().to_owned()
}

/// A folder for one test: home, videos, job files, results.
pub(crate) struct Place {
    dir: tempfile::TempDir,
}

/// A video of the archive as a file.
pub(crate) struct Video {
    pub(crate) plan: DemoVideo,
    pub(crate) path: PathBuf,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Videos of these lengths at two frames a second, with `questions` questions each.
    pub(crate) fn videos(&self, seconds: &[u32], questions: usize) -> Vec<Video> {
        let options =
            ArchiveOptions { seconds: seconds.to_vec(), fps: vec![2], questions_per_video: questions };
        let plans = Archive::plan(7, &options).unwrap();
        let encode = |(number, plan): (usize, DemoVideo)| {
            let path = self.path(&format!("video-{number}.mp4"));
            let fps = FrameRate::whole(plan.fps);
            let options = EncodeOptions {
                fps,
                preset: Preset::Ultrafast,
                gop: Some(plan.gop),
                ..EncodeOptions::default()
            };
            let mut encoder = Encoder::create(&path, SIDE, SIDE, &options).unwrap();
            let painter = plan.painter();
            (0..plan.frame_count()).for_each(|frame| encoder.push(&painter.frame(frame)).unwrap());
            encoder.finish().unwrap();
            Video { plan, path }
        };
        plans.into_iter().enumerate().map(encode).collect()
    }

    /// `spectemp` with the home of this place, in its folder, blind to the user's own settings.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(spectemp());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SPECTEMP_")) {
            command.env_remove(name);
        }
        command.args(args).args(["--home", self.path("home").to_str().unwrap()]).current_dir(self.dir.path());
        command.env("SPECTEMP_CONFIG", self.path("none.toml")).stdin(Stdio::null());
        std::fs::write(self.path("none.toml"), "").unwrap();
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Done {
        Done::of(self.command(args).output().unwrap())
    }

    /// Starts a command whose stderr goes to the file `log`.
    pub(crate) fn start(&self, args: &[&str], log: &Path) -> Child {
        let log = File::create(log).unwrap();
        self.command(args).stdout(Stdio::null()).stderr(log).spawn().unwrap()
    }

    /// Rows of a query.
    pub(crate) fn sql(&self, query: &str) -> Vec<Value> {
        let done = self.run(&["sql", query, "--format", "json"]);
        assert_eq!(done.code, Some(0), "{}", done.stderr);
        serde_json::from_str(&done.stdout).unwrap()
    }

    /// The file `name` with one JSON object per line.
    pub(crate) fn write_jobs(&self, name: &str, jobs: &[Value]) -> String {
        let lines: String = jobs.iter().map(|job| format!("{job}\n")).collect();
        self.write(name, lines.as_bytes())
    }

    pub(crate) fn write(&self, name: &str, content: &[u8]) -> String {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// The objects of `results/name`.
    pub(crate) fn results(&self, results: &str, name: &str) -> Vec<Value> {
        let path = self.path(results).join(name);
        let text =
            std::fs::read_to_string(&path).unwrap_or_else(|cause| panic!("{}: {cause}", path.display()));
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// A command that has ended.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Done {
    pub(crate) fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

/// The arguments that name the demonstration pair and its plan.
pub(crate) fn pair() -> Vec<String> {
    let target = ["--target".to_owned(), model("target")];
    let draft = ["--draft".to_owned(), model("draft")];
    let plan = ["--plan".to_owned(), "demo".to_owned()];
    [target, draft, plan].concat()
}

/// `args`, then [`pair`].
pub(crate) fn with_pair<'a>(args: &[&'a str], pair: &'a [String]) -> Vec<&'a str> {
    args.iter().copied().chain(pair.iter().map(String::as_str)).collect()
}

/// All questions about `videos` as jobs, with ids `video-question`.
pub(crate) fn jobs(videos: &[Video]) -> Vec<Value> {
    let mut jobs = Vec::new();
    for (v, video) in videos.iter().enumerate() {
        for (q, question) in video.plan.questions.iter().enumerate() {
            jobs.push(json!({ "id": format!("{v}-{q}"), "video": video.path, "question": question.text }));
        }
    }
    jobs
}

/// Sends `signal` (`INT` for Ctrl-C) to a child.
pub(crate) fn signal(child: &Child, signal: &str) {
    let status =
        Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status().unwrap();
    assert!(status.success(), "kill -{signal} failed");
}

/// Where a server says that it listens, in its log.
pub(crate) fn address(serve: &mut Child, log: &Path) -> String {
    let started = Instant::now();
    loop {
        let log = std::fs::read_to_string(log).unwrap();
        if let Some(from) = log.find("http://127.0.0.1:") {
            let rest = &log[from..];
            let end = rest.find(|c: char| c.is_whitespace() || c == '"').unwrap_or(rest.len());
            return rest[..end].trim_end_matches('/').to_owned();
        }
        assert!(serve.try_wait().unwrap().is_none(), "serve ended: {log}");
        assert!(started.elapsed() < Duration::from_secs(30), "serve does not say where it listens: {log}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
