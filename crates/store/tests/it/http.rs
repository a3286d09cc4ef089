//! Objects over HTTP: the exact URL, ranges, sizes, uploads; and S3 through an endpoint of the environment.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt};
use spectemp_store::{AllowList, LocationOptions, Locations, location};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

use crate::common::uri;

/// What was asked, and what is there. Only a target that was put (or set) is found, query and all.
#[derive(Clone, Default)]
struct Server {
    objects: Arc<Mutex<HashMap<String, Vec<u8>>>>,
    log: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start() -> (Self, SocketAddr) {
        let server = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepting = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(accepting.clone().serve(stream));
            }
        });
        (server, address)
    }

    async fn serve(self, stream: TcpStream) {
        let mut stream = BufReader::new(stream);
        loop {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if stream.read_line(&mut head).await.unwrap_or(0) == 0 {
                    return;
                }
            }
            let header = |name: &str| {
                head.lines().find_map(|line| {
                    line.to_ascii_lowercase().starts_with(name).then(|| line[name.len()..].trim().to_owned())
                })
            };
            let mut request = head.split(' ');
            let (method, target) = (request.next().unwrap(), request.next().unwrap().to_owned());
            let range = header("range:");
            self.log.lock().unwrap().push(format!("{method} {target} {}", range.clone().unwrap_or_default()));
            let length = header("content-length:").map_or(0, |text| text.parse().unwrap());
            let mut body = vec![0; length];
            stream.read_exact(&mut body).await.unwrap();
            let (head, body) = self.answer(method, target, range, body);
            let head = format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(&body).await.unwrap();
        }
    }

    fn answer(
        &self,
        method: &str,
        target: String,
        range: Option<String>,
        body: Vec<u8>,
    ) -> (String, Vec<u8>) {
        let mut objects = self.objects.lock().unwrap();
        match (method, objects.get(&target)) {
            ("PUT", _) => {
                objects.insert(target, body);
                ("200 OK\r\netag: \"p\"".into(), vec![])
            }
            // As a presigned URL does.
            ("HEAD", _) => ("403 Forbidden".into(), vec![]),
            // An object that holds `=> URL` leads there.
            (_, Some(content)) if content.starts_with(b"=> ") => {
                let to = String::from_utf8_lossy(&content[3..]).into_owned();
                (format!("302 Found\r\nlocation: {to}"), vec![])
            }
            (_, None) => ("404 Not Found".into(), vec![]),
            (_, Some(content)) => match range {
                None => ("200 OK\r\netag: \"e\"".into(), content.clone()),
                Some(_) if content.is_empty() => {
                    ("416 Range Not Satisfiable\r\ncontent-range: bytes */0".into(), vec![])
                }
                Some(range) => {
                    let (start, end) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
                    let (start, end): (usize, usize) = (start.parse().unwrap(), end.parse().unwrap());
                    let end = end.min(content.len() - 1);
                    let head = format!(
                        "206 Partial Content\r\netag: \"e\"\r\nlast-modified: Wed, 21 Oct 2015 07:28:00 GMT\r\n\
                         content-range: bytes {start}-{end}/{}",
                        content.len()
                    );
                    (head, content[start..=end].to_vec())
                }
            },
        }
    }
}

fn impatient() -> LocationOptions {
    LocationOptions { retries: 0, ..LocationOptions::default() }
}

#[tokio::test]
async fn a_presigned_url_is_asked_exactly_as_it_is() {
    let (server, address) = Server::start().await;
    let target = "/b/x%20y%2Fz//v.mp4?X-Amz-Signature=abc%2Fdef&n=1";
    server.objects.lock().unwrap().insert(target.into(), (0..=255).collect());
    server.objects.lock().unwrap().insert("/empty?s=1".into(), vec![]);
    let locations = Locations::new(impatient());
    let location = locations.resolve(&uri(&format!("http://{address}{target}"))).unwrap();
    assert!(!format!("{location:?}").contains("abc"));

    let bytes = location.store.get_range(&location.path, 10..14).await.unwrap();
    assert_eq!(bytes.as_ref(), [10, 11, 12, 13]);
    let first = GetOptions { range: Some(GetRange::Bounded(0..16)), ..GetOptions::default() };
    let got = location.store.get_opts(&location.path, first).await.unwrap();
    assert_eq!((got.meta.size, got.meta.e_tag.as_deref()), (256, Some("\"e\"")));
    // A question for the size, which the server refuses as HEAD.
    assert_eq!(location.store.head(&location.path).await.unwrap().size, 256);
    let log = server.log.lock().unwrap().clone();
    assert!(log.iter().all(|line| line.starts_with(&format!("GET {target} "))), "{log:?}");

    let empty = locations.resolve(&uri(&format!("http://{address}/empty?s=1"))).unwrap();
    assert_eq!(empty.store.head(&empty.path).await.unwrap().size, 0);
}

#[tokio::test]
async fn errors_over_http_are_told_apart_and_show_no_signature() {
    let (_server, address) = Server::start().await;
    let locations = Locations::new(impatient());
    let missing = locations.resolve(&uri(&format!("http://{address}/gone.mp4?sig=secret"))).unwrap();
    let error = missing.store.get_range(&missing.path, 0..4).await.unwrap_err();
    assert!(matches!(error, object_store::Error::NotFound { .. }), "{error}");
    assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
    let dead = locations.resolve(&uri("http://127.0.0.1:9/x.mp4?sig=secret")).unwrap();
    let error = dead.store.get_range(&dead.path, 0..4).await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
}

#[tokio::test]
async fn s3_goes_to_the_endpoint_of_the_environment() {
    let (server, address) = Server::start().await;
    let environment = [
        ("AWS_ENDPOINT_URL", format!("http://{address}")),
        ("AWS_ACCESS_KEY_ID", "key".into()),
        ("AWS_SECRET_ACCESS_KEY", "secret".into()),
        ("AWS_REGION", "eu-west-1".into()),
    ];
    let environment = environment.map(|(name, value)| (name.to_owned(), value));
    let locations = Locations::with_environment(impatient(), environment);
    let location = locations.resolve(&uri("s3://bucket/dir/a b#1%2525.mp4")).unwrap();
    location.store.put(&location.path, vec![1, 2, 3, 4].into()).await.unwrap();
    assert_eq!(location.store.get_range(&location.path, 1..3).await.unwrap().as_ref(), [2, 3]);
    let log = server.log.lock().unwrap().clone();
    assert_eq!(log[0].trim(), "PUT /bucket/dir/a%20b%231%2525.mp4");
    assert_eq!(log[1].trim(), "GET /bucket/dir/a%20b%231%2525.mp4 bytes=1-2");
    let again = locations.resolve(&uri("s3://bucket/other")).unwrap();
    assert!(Arc::ptr_eq(&again.store, &location.store), "one client per bucket");
}

#[tokio::test]
async fn local_names_of_any_kind_are_found() {
    let dir = crate::common::dir();
    let locations = Locations::default();
    for name in [
        "plain.mp4",
        "a b.mp4",
        "c#1.mp4",
        "what?.mp4",
        "100%.mp4",
        "a%20b.mp4",
        "ü/日本.mp4",
        "[x]{y}~^.mp4",
        "a\\b.mp4",
    ] {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, name).unwrap();
        let location = locations.resolve(&uri(path.to_str().unwrap())).unwrap();
        let bytes = location.store.get(&location.path).await.unwrap().bytes().await.unwrap();
        assert_eq!(bytes.as_ref(), name.as_bytes());
        let joined = location::under(&uri(dir.path().to_str().unwrap()), name).unwrap();
        let location = locations.resolve(&joined).unwrap();
        assert_eq!(location.store.head(&location.path).await.unwrap().size, name.len() as u64);
    }
}

#[tokio::test]
async fn redirects_lead_only_to_what_is_allowed() {
    let (server, address) = Server::start().await;
    let (elsewhere, other) = Server::start().await;
    let put = |server: &Server, path: &str, content: &str| {
        server.objects.lock().unwrap().insert(path.to_owned(), content.as_bytes().to_vec());
    };
    put(&server, "/in/a.mp4", "=> /in/real.mp4?signed=1");
    put(&server, "/in/real.mp4?signed=1", "1234");
    put(&server, "/in/up.mp4", "=> /secret.mp4");
    put(&server, "/in/tricky.mp4", "=> /in/..%2fsecret.mp4");
    put(&server, "/in/user.mp4", &format!("=> http://me@{address}/in/real.mp4?signed=1"));
    put(&server, "/in/away.mp4", &format!("=> http://{other}/in/a.mp4"));
    put(&server, "/in/loop.mp4", "=> /in/loop.mp4");
    put(&server, "/secret.mp4", "5678");
    put(&elsewhere, "/in/a.mp4", "9999");
    let read = async |locations: &Locations, name: &str| {
        let place = locations.resolve(&uri(&format!("http://{address}/in/{name}"))).unwrap();
        place.store.get_range(&place.path, 0..4).await.map(|bytes| bytes.to_vec())
    };
    let list = AllowList::parse([format!("http://{address}/in/")]).unwrap();
    let fenced = Locations::new(impatient()).allow(list);
    assert_eq!(read(&fenced, "a.mp4").await.unwrap(), b"1234");
    for name in ["up.mp4", "tricky.mp4", "user.mp4", "away.mp4", "loop.mp4"] {
        let error = read(&fenced, name).await.unwrap_err();
        assert!(!format!("{error:?}").contains("signed=1"), "{error:?}");
    }
    assert!(elsewhere.log.lock().unwrap().is_empty(), "another host was asked");
    assert!(!server.log.lock().unwrap().iter().any(|line| line.contains("secret")));
    // The command line follows where its user's servers lead.
    assert_eq!(read(&Locations::new(impatient()), "away.mp4").await.unwrap(), b"9999");
}
