//! One trace from the request that submits a job, over the worker, to its rounds: between real processes, sent to a
//! collector.

// The collector of telemetry's own tests.
#[path = "../../crates/telemetry/tests/it/collector.rs"]
mod collector;

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use collector::Span;
use serde_json::{Value, json};

use crate::{
    cluster::Servers,
    support::{Place, address, jobs, pair, signal, with_pair},
};

const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Submits with a caller's `traceparent`, and waits for the answer; the job's id and its rounds.
async fn ask(server: &str, job: &Value) -> (String, usize) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let reply =
        client.post(format!("{server}/api/v1/jobs")).header("traceparent", CALLER).json(job).send().await;
    let reply = reply.unwrap();
    assert_eq!(reply.status(), 201);
    let made: Value = reply.json().await.unwrap();
    let id = made["job_id"].as_str().unwrap().to_owned();
    for _ in 0..600 {
        let job: Value =
            client.get(format!("{server}/api/v1/jobs/{id}")).send().await.unwrap().json().await.unwrap();
        match job["status"].as_str().unwrap() {
            "answered" => {
                let rounds = client.get(format!("{server}/api/v1/jobs/{id}/rounds")).send().await.unwrap();
                let rounds: Value = rounds.json().await.unwrap();
                return (id, rounds["rounds"].as_array().unwrap().len());
            }
            "queued" | "running" => tokio::time::sleep(Duration::from_millis(100)).await,
            _ => panic!("{job}"),
        }
    }
    panic!("job {id} was not answered");
}

fn end(mut child: Child) {
    signal(&child, "TERM");
    let ended = child.wait().unwrap();
    assert!(ended.success(), "{ended}");
}

#[test]
fn a_job_has_one_trace_from_the_request_to_its_rounds() {
    let (place, servers) = (Place::new(), Servers::start());
    let videos = place.videos(&[64], 1);
    let (traces, bodies) = collector::start();
    let start = |args: &[&str], service: &str| {
        let mut command: Command = place.command(args);
        command.envs([
            ("SPECTEMP_DATABASE_URL", servers.postgres.as_str()),
            ("SPECTEMP_REDIS_URL", servers.redis.as_str()),
            ("SPECTEMP_OBJECTS", place.path("objects").to_str().unwrap()),
            ("SPECTEMP_ALLOW", videos[0].path.parent().unwrap().to_str().unwrap()),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", traces.as_str()),
            ("OTEL_SERVICE_NAME", service),
        ]);
        let log = std::fs::File::create(place.path(&format!("{service}.log"))).unwrap();
        command.stdout(Stdio::null()).stderr(log).spawn().unwrap()
    };
    std::fs::create_dir_all(place.path("objects")).unwrap();
    let migrated = place.run(&["migrate", "--database-url", &servers.postgres]);
    assert_eq!(migrated.code, Some(0), "{}", migrated.stderr);
    let mut serve = start(&["serve", "--listen", "127.0.0.1:0"], "api");
    let server = address(&mut serve, &place.path("api.log"));
    let pair = pair();
    let worker = start(&with_pair(&["worker"], &pair[..4]), "worker");
    let mut job = jobs(&videos).remove(0);
    job["plan"] = json!("demo");
    let asked = tokio::runtime::Runtime::new().unwrap().block_on(ask(&server, &job));
    end(worker);
    end(serve);

    let (job, rounds) = asked;
    let spans: Vec<Span> = bodies.try_iter().flat_map(|body| collector::spans(&body)).collect();
    let (trace, version) = (job.replace('-', ""), env!("CARGO_PKG_VERSION"));
    let mine: Vec<&Span> = spans.iter().filter(|span| hex(&span.trace) == trace).collect();
    let named = |name: &str| mine.iter().copied().filter(|span| span.name == name).collect::<Vec<_>>();
    let [submit] = named("submit")[..] else { panic!("{mine:?}") };
    let [worked] = named("job")[..] else { panic!("{mine:?}") };
    assert_eq!((submit.service.as_str(), submit.version.as_str()), ("api", version));
    assert_eq!(
        (worked.service.as_str(), &worked.parent),
        ("worker", &submit.parent),
        "both hang on the job's id"
    );
    let under_job = named("round").iter().filter(|round| round.parent == worked.id).count();
    // The last one finds that there is nothing left to do.
    assert!(rounds > 0 && under_job == rounds + 1, "{rounds} rounds are committed, {under_job} are told of");
    let request = spans.iter().find(|span| submit.links.contains(&span.id));
    let request = request.unwrap_or_else(|| panic!("the request is not linked: {spans:?}"));
    assert_eq!(format!("00-{}-{}-01", hex(&request.trace), hex(&request.parent)), CALLER);
}
