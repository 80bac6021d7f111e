//! containerd's CRI as a kubelet sees it, passed on as it is in both directions: but for the logins that come with requests
//! to pull images, of which note is taken, so that the images can be shown that they are for.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use dfs_proto::cri::PullImageRequest;
use prost::Message;
use tonic::Status;
use tonic::transport::Channel;
use tower::ServiceExt;

use super::logins::Logins;

/// The calls that are looked into: the same in both versions of CRI.
const PULLS: [&str; 2] =
    ["/runtime.v1.ImageService/PullImage", "/runtime.v1alpha2.ImageService/PullImage"];

/// Longest request to pull an image: what gRPC takes unless it is told otherwise.
const MAX_PULL: usize = 4 << 20;

/// Before each message of gRPC: whether it is compressed, and its length.
const PREFIX: usize = 5;

#[derive(Clone)]
struct Passing {
    runtime: Channel,
    logins: Arc<Logins>,
}

/// What is served to a kubelet in the place of the runtime that `runtime` leads to.
pub(super) fn passing(runtime: Channel, logins: Arc<Logins>) -> Router {
    Router::new().fallback(pass).with_state(Passing { runtime, logins })
}

async fn pass(State(passing): State<Passing>, request: Request) -> Response {
    let request = match PULLS.contains(&request.uri().path()) {
        false => request,
        true => {
            let (head, body) = request.into_parts();
            let Ok(bytes) = to_bytes(body, MAX_PULL + PREFIX).await else {
                let why = "the request to pull an image is longer than 4 MiB, or was broken off";
                return Status::resource_exhausted(why).into_http::<Body>().into_response();
            };
            if let Some(pull) = pull_of(&bytes) {
                let image = pull.image.unwrap_or_default().image;
                passing.logins.note(&image, pull.auth.as_ref());
            }
            Request::from_parts(head, Body::from(bytes))
        }
    };
    let request = request.map(tonic::body::Body::new);
    match passing.runtime.oneshot(request).await {
        Ok(response) => response.map(Body::new),
        Err(error) => {
            let why = format!("the container runtime cannot be reached: {error}");
            Status::unavailable(why).into_http::<Body>().into_response()
        }
    }
}

/// The one message of a request. One that is compressed is for the runtime alone.
fn pull_of(bytes: &[u8]) -> Option<PullImageRequest> {
    let (prefix, message) = bytes.split_at_checked(PREFIX)?;
    let length = u32::from_be_bytes(prefix[1..].try_into().ok()?) as usize;
    (prefix[0] == 0 && message.len() == length).then(|| PullImageRequest::decode(message).ok())?
}

#[cfg(test)]
mod tests {
    use dfs_proto::cri::ImageSpec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_request_is_read_from_its_frame() {
        let image = Some(ImageSpec { image: "h/a:1".to_owned() });
        let message = PullImageRequest { image: image.clone(), auth: None }.encode_to_vec();
        let length = u8::try_from(message.len()).unwrap();
        let frame = [&[0, 0, 0, 0, length], &message[..]].concat();
        assert_eq!(pull_of(&frame).unwrap().image, image);
        assert_eq!(pull_of(&frame[..frame.len() - 1]), None);
        assert_eq!(pull_of(&[&[1], &frame[1..]].concat()), None);
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = pull_of(&bytes);
        }
    }
}
