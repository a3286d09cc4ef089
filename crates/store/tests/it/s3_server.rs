//! An S3 server in the test's own process: s3s-fs, and around it what s3s-fs does not know: ETags and storage classes in
//! listings (which it makes by walking all files for every page), RestoreObject, and faults on demand.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use s3s::{
    S3, S3ErrorCode, S3Request, S3Response, S3Result,
    auth::SimpleAuth,
    dto::{
        AbortMultipartUploadInput, AbortMultipartUploadOutput, CommonPrefix, CompleteMultipartUploadInput,
        CompleteMultipartUploadOutput, CreateMultipartUploadInput, CreateMultipartUploadOutput,
        DeleteObjectInput, DeleteObjectOutput, DeleteObjectsInput, DeleteObjectsOutput, ETag, GetObjectInput,
        GetObjectOutput, HeadObjectInput, HeadObjectOutput, ListObjectsV2Input, ListObjectsV2Output, Object,
        ObjectStorageClass, PutObjectInput, PutObjectOutput, RestoreObjectInput, RestoreObjectOutput,
        RestoreStatus, Timestamp, UploadPartInput, UploadPartOutput,
    },
    s3_error,
    service::S3ServiceBuilder,
};
use s3s_fs::FileSystem;
use spectemp_store::{LocationOptions, Locations};
use tempfile::TempDir;
use tokio::net::TcpListener;

pub(crate) const KEY: &str = "AKTEST";
pub(crate) const SECRET: &str = "SKTEST";

/// Of an archived object.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Restoring {
    No,
    Running,
    Done,
}

struct Entry {
    key: String,
    etag: String,
    size: i64,
}

#[derive(Default)]
struct State {
    /// All objects of the bucket in order, until something is written.
    entries: Mutex<Option<Arc<Vec<Entry>>>>,
    root: PathBuf,
    archived: Mutex<HashMap<String, (String, Restoring)>>,
    /// Every n-th request fails, every m-th is answered late; 0: none.
    fails_every: AtomicU32,
    stalls_every: AtomicU32,
    requests: AtomicU32,
    listings: AtomicU32,
    /// Listings say nothing of restores: as servers besides Amazon's.
    silent: Mutex<bool>,
}

impl State {
    fn entries(&self, bucket: &str) -> Arc<Vec<Entry>> {
        let mut entries = self.entries.lock().unwrap();
        if let Some(entries) = entries.as_ref() {
            return Arc::clone(entries);
        }
        let root = self.root.join(bucket);
        let mut found = Vec::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let content = std::fs::read(&path).unwrap();
                found.push(Entry {
                    key: path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned(),
                    etag: blake3::hash(&content).to_hex()[..32].to_owned(),
                    size: content.len() as i64,
                });
            }
        }
        found.sort_by(|one, other| one.key.cmp(&other.key));
        Arc::clone(entries.insert(Arc::new(found)))
    }

    fn object(&self, entry: &Entry) -> Object {
        let archived = self.archived.lock().unwrap().get(&entry.key).cloned();
        let (class, restoring) = archived.unwrap_or(("STANDARD".into(), Restoring::No));
        let silent = *self.silent.lock().unwrap();
        let restore_status = match restoring {
            _ if silent => None,
            Restoring::No => None,
            Restoring::Running => {
                Some(RestoreStatus { is_restore_in_progress: Some(true), restore_expiry_date: None })
            }
            Restoring::Done => Some(RestoreStatus {
                is_restore_in_progress: Some(false),
                restore_expiry_date: Some(Timestamp::from(SystemTime::now() + Duration::from_secs(86_400))),
            }),
        };
        Object {
            key: Some(entry.key.clone()),
            e_tag: Some(ETag::Strong(entry.etag.clone())),
            size: Some(entry.size),
            last_modified: Some(Timestamp::from(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000))),
            storage_class: Some(ObjectStorageClass::from(class)),
            restore_status,
            ..Object::default()
        }
    }
}

struct Archive {
    inner: FileSystem,
    state: Arc<State>,
}

/// The server; its objects are files in `dir`.
pub(crate) struct S3Server {
    dir: TempDir,
    pub(crate) endpoint: String,
    state: Arc<State>,
}

impl S3Server {
    /// With one bucket, `bucket`.
    pub(crate) async fn start() -> Self {
        let dir = crate::common::dir();
        std::fs::create_dir(dir.path().join("bucket")).unwrap();
        let state = Arc::new(State { root: dir.path().to_owned(), ..State::default() });
        let archive = Archive { inner: FileSystem::new(dir.path()).unwrap(), state: Arc::clone(&state) };
        let mut service = S3ServiceBuilder::new(archive);
        service.set_auth(SimpleAuth::from_single(KEY, SECRET));
        let service = service.build();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                let service = service.clone();
                tokio::spawn(async move {
                    let server = Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { dir, endpoint, state }
    }

    pub(crate) fn environment(&self, more: &[(&str, &str)]) -> Vec<(String, String)> {
        let mut pairs = vec![("AWS_ENDPOINT_URL", self.endpoint.as_str()), ("AWS_REGION", "eu-west-1")];
        pairs.extend(more);
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    pub(crate) fn locations(&self) -> Locations {
        self.locations_with(LocationOptions::default())
    }

    pub(crate) fn locations_with(&self, options: LocationOptions) -> Locations {
        let keys = [("AWS_ACCESS_KEY_ID", KEY), ("AWS_SECRET_ACCESS_KEY", SECRET)];
        Locations::with_environment(options, self.environment(&keys))
    }

    /// Puts an object in its place, around the server.
    pub(crate) fn put(&self, key: &str, content: &[u8]) {
        let path = self.path(key);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
        self.state.entries.lock().unwrap().take();
    }

    pub(crate) fn remove(&self, key: &str) {
        std::fs::remove_file(self.path(key)).unwrap();
        self.state.entries.lock().unwrap().take();
    }

    fn path(&self, key: &str) -> PathBuf {
        self.dir.path().join("bucket").join(key)
    }

    pub(crate) fn archive(&self, key: &str, class: &str, restoring: Restoring) {
        self.state.archived.lock().unwrap().insert(key.to_owned(), (class.to_owned(), restoring));
    }

    pub(crate) fn restoring(&self, key: &str) -> Restoring {
        self.state.archived.lock().unwrap()[key].1
    }

    pub(crate) fn be_silent(&self) {
        *self.state.silent.lock().unwrap() = true;
    }

    pub(crate) fn listings(&self) -> u32 {
        self.state.listings.load(Ordering::Relaxed)
    }

    pub(crate) fn requests(&self) -> u32 {
        self.state.requests.load(Ordering::Relaxed)
    }

    /// From now on every `fails`-th request is answered `503`, every `stalls`-th only after a minute.
    pub(crate) fn misbehave(&self, fails: u32, stalls: u32) {
        self.state.fails_every.store(fails, Ordering::Relaxed);
        self.state.stalls_every.store(stalls, Ordering::Relaxed);
    }
}

impl Archive {
    async fn fault(&self) -> S3Result<()> {
        let number = self.state.requests.fetch_add(1, Ordering::Relaxed) + 1;
        let hits = |every: &AtomicU32| match every.load(Ordering::Relaxed) {
            0 => false,
            every => number.is_multiple_of(every),
        };
        if hits(&self.state.stalls_every) {
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        if hits(&self.state.fails_every) { Err(s3_error!(SlowDown)) } else { Ok(()) }
    }
}

macro_rules! pass_on {
    ($($method:ident, $input:ty, $output:ty;)*) => {
        #[async_trait]
        impl S3 for Archive {
            $(async fn $method(&self, request: S3Request<$input>) -> S3Result<S3Response<$output>> {
                self.fault().await?;
                self.state.entries.lock().unwrap().take();
                self.inner.$method(request).await
            })*

            async fn list_objects_v2(
                &self,
                request: S3Request<ListObjectsV2Input>,
            ) -> S3Result<S3Response<ListObjectsV2Output>> {
                self.list(request).await
            }

            async fn head_object(
                &self,
                request: S3Request<HeadObjectInput>,
            ) -> S3Result<S3Response<HeadObjectOutput>> {
                self.head(request).await
            }

            async fn restore_object(
                &self,
                request: S3Request<RestoreObjectInput>,
            ) -> S3Result<S3Response<RestoreObjectOutput>> {
                self.restore(request).await
            }
        }
    };
}

pass_on! {
    get_object, GetObjectInput, GetObjectOutput;
    put_object, PutObjectInput, PutObjectOutput;
    delete_object, DeleteObjectInput, DeleteObjectOutput;
    delete_objects, DeleteObjectsInput, DeleteObjectsOutput;
    create_multipart_upload, CreateMultipartUploadInput, CreateMultipartUploadOutput;
    upload_part, UploadPartInput, UploadPartOutput;
    complete_multipart_upload, CompleteMultipartUploadInput, CompleteMultipartUploadOutput;
    abort_multipart_upload, AbortMultipartUploadInput, AbortMultipartUploadOutput;
}

impl Archive {
    async fn list(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        self.fault().await?;
        self.state.listings.fetch_add(1, Ordering::Relaxed);
        let input = request.input;
        if !self.state.root.join(&input.bucket).is_dir() {
            return Err(s3_error!(NoSuchBucket));
        }
        let most = input.max_keys.unwrap_or(1000) as usize;
        let prefix = input.prefix.clone().unwrap_or_default();
        let after = input.continuation_token.clone().max(input.start_after.clone()).unwrap_or_default();
        let mut output = ListObjectsV2Output { is_truncated: Some(false), ..Default::default() };
        let (mut contents, mut folders) = (Vec::new(), Vec::<String>::new());
        for entry in self.state.entries(&input.bucket).iter() {
            let Some(rest) = entry.key.strip_prefix(&prefix) else { continue };
            let folder = input.delimiter.as_deref().and_then(|delimiter| rest.find(delimiter));
            let folder = folder.map(|end| entry.key[..prefix.len() + end + 1].to_owned());
            let shown = folder.clone().unwrap_or(entry.key.clone());
            if shown <= after || (folder.is_some() && folders.last() == folder.as_ref()) {
                continue;
            }
            if contents.len() + folders.len() == most {
                output.is_truncated = Some(true);
                break;
            }
            output.next_continuation_token = Some(shown);
            match folder {
                Some(folder) => folders.push(folder),
                None => contents.push(self.state.object(entry)),
            }
        }
        if output.is_truncated == Some(false) {
            output.next_continuation_token = None;
        }
        output.contents = Some(contents);
        output.common_prefixes =
            Some(folders.into_iter().map(|prefix| CommonPrefix { prefix: Some(prefix) }).collect());
        Ok(S3Response::new(output))
    }

    async fn head(&self, request: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        self.fault().await?;
        let key = request.input.key.clone();
        let mut head = self.inner.head_object(request).await?;
        head.output.restore = match self.state.archived.lock().unwrap().get(&key) {
            Some((_, Restoring::Running)) => Some("ongoing-request=\"true\"".to_owned()),
            Some((_, Restoring::Done)) => {
                Some("ongoing-request=\"false\", expiry-date=\"Fri, 21 Dec 2040 00:00:00 GMT\"".to_owned())
            }
            _ => None,
        };
        Ok(head)
    }

    async fn restore(
        &self,
        request: S3Request<RestoreObjectInput>,
    ) -> S3Result<S3Response<RestoreObjectOutput>> {
        self.fault().await?;
        let asked = request.input.restore_request.unwrap();
        assert!(asked.days.unwrap() > 0 && asked.glacier_job_parameters.is_some());
        match self.state.archived.lock().unwrap().get_mut(&request.input.key) {
            Some((_, restoring @ Restoring::No)) => *restoring = Restoring::Running,
            Some((_, Restoring::Running)) => {
                return Err(S3ErrorCode::Custom("RestoreAlreadyInProgress".into()).into());
            }
            Some((_, Restoring::Done)) => {}
            None => return Err(S3ErrorCode::Custom("InvalidObjectState".into()).into()),
        }
        Ok(S3Response::new(RestoreObjectOutput::default()))
    }
}
