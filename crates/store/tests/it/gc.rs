//! What `gc` frees, and what it leaves.

use std::time::Duration;

use bytes::Bytes;
use spectemp_store::{GcLimits, ObjectKey};
use spectemp_types::JobId;

use crate::common::{answer, claim, home, spec, trace};

#[tokio::test]
async fn only_what_nothing_needs_is_freed() {
    let (dir, home) = home().await;
    home.ledger().submit("b", &[spec("q1", "/v/a.mp4")]).await.unwrap();
    let claimed = claim(&home, "b", 1).await.remove(0);
    let (job, epoch, job_spec) = (claimed.job.id, claimed.lease.epoch(), claimed.job.spec.clone());
    answer(&home, claimed).await;
    let kept = ObjectKey::Thumbnail { job, round: 0, frame: 1 };
    home.objects().put(&kept, Bytes::from_static(b"png")).await.unwrap();

    // A writer that came late left a trace, a job that is gone a thumbnail, a dead process half a file.
    let orphan = home.objects().put_trace(epoch + 7, &trace(job, job_spec, vec![])).await.unwrap();
    let stray = ObjectKey::Thumbnail { job: JobId::new(), round: 0, frame: 0 };
    home.objects().put(&stray, Bytes::from_static(b"12345")).await.unwrap();
    std::fs::write(dir.path().join("objects/traces/half.json#1"), "1234567").unwrap();
    let blocks = home.disk_cache("blocks", 1 << 20).unwrap();
    for n in 0..20 {
        blocks.put(&n.to_string(), &[0; 1000]).unwrap();
    }
    let models = home.cache_dir("models").unwrap();
    std::fs::write(models.join("model.safetensors"), vec![0; 100_000]).unwrap();

    let limits = GcLimits { cache_bytes: 10_000, forget_videos: Duration::ZERO };
    let report = home.gc(&limits).await.unwrap();
    assert_eq!((report.objects, report.temp_files, report.temp_bytes), (2, 1, 7));
    assert!(report.object_bytes > 5);
    assert!(report.cache_bytes >= 10_000 && report.cache_files >= 10, "{report:?}");
    assert_eq!(home.objects().get(&orphan).await.unwrap(), None);
    assert_eq!(home.objects().get(&stray).await.unwrap(), None);
    assert!(home.objects().get(&kept).await.unwrap().is_some());
    assert!(home.objects().trace(job, epoch).await.unwrap().is_some());
    assert!(models.join("model.safetensors").is_file());
    assert!(blocks.get("19").is_some() || blocks.get("18").is_some());

    let again = home.gc(&limits).await.unwrap();
    assert_eq!((again.objects, again.cache_files, again.temp_files), (0, 0, 0));
}
