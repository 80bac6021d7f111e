//! Finding, sharing and losing connections.

use std::net::SocketAddr;
use std::time::Duration;

use dfs_model::HostId;
use futures::future;

use super::rig::*;
use crate::wire::*;

fn addr(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

#[tokio::test(start_paused = true)]
async fn concurrent_callers_share_one_connection() {
    let rig = Rig::new();
    let connections = future::join_all((0..20).map(|_| rig.connect())).await;
    assert_eq!(rig.network.dials(), 1);
    assert_eq!(connections[7].peer().host, SERVER);
    assert_eq!(connections[7].peer().name, "parent");
    drop(connections);
    rig.finish().await;
}

#[tokio::test(start_paused = true)]
async fn the_first_address_that_works_is_used() {
    let rig = Rig::new();
    rig.network.swallow(addr(1));
    let connection = rig.pool.connect(SERVER, &[addr(1), addr(2), ADDR]).await.unwrap();
    assert_eq!(connection.peer().address.socket, ADDR);
    assert_eq!(rig.network.dials(), 3);
    drop(connection);
    rig.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_failing_host_is_left_alone_for_a_while() {
    let rig = Rig::new();
    let host = HostId::from_bytes([9; 16]);
    assert!(matches!(*rig.pool.connect(host, &[]).await.unwrap_err(), ConnectError::NoAddress(_)));
    let error = rig.pool.connect(host, &[addr(2)]).await.unwrap_err();
    assert!(matches!(*error, ConnectError::Io(_)), "{error}");
    for _ in 0..10 {
        let error = rig.pool.connect(host, &[addr(2)]).await.unwrap_err();
        assert!(matches!(*error, ConnectError::BackingOff { .. }), "{error}");
    }
    assert_eq!(rig.network.dials(), 1);
    let retry = async {
        loop {
            match rig.pool.connect(host, &[addr(2)]).await {
                Err(error) => match &*error {
                    ConnectError::BackingOff { remaining, .. } => {
                        tokio::time::sleep(*remaining).await;
                    }
                    _ => break,
                },
                Ok(_) => panic!("nobody listens there"),
            }
        }
    };
    retry.await;
    assert_eq!(rig.network.dials(), 2);
    rig.finish().await;
}

#[tokio::test(start_paused = true)]
async fn somebody_else_at_the_address_is_not_the_host() {
    let rig = Rig::new();
    let host = HostId::from_bytes([9; 16]);
    let error = rig.pool.connect(host, &[ADDR]).await.unwrap_err();
    let ConnectError::WrongHost { expected, found } = &*error else { panic!("{error}") };
    assert_eq!((*expected, *found), (host, SERVER));
    rig.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_address_that_swallows_everything_times_out() {
    let rig = Rig::new();
    rig.network.swallow(addr(1));
    let error = rig.pool.connect(SERVER, &[addr(1)]).await.unwrap_err();
    assert!(matches!(*error, ConnectError::Timeout(_)), "{error}");
    rig.finish().await;
}

#[tokio::test(start_paused = true)]
async fn idle_connections_are_closed_and_used_ones_are_kept() {
    let rig = Rig::new();
    let connection = rig.connect().await;
    assert_eq!(collect(connection.request(Script::Gives.ask(0, 1))).await, Ok(1));
    // Somebody holds it: kept alive, pings included.
    tokio::time::sleep(Duration::from_secs(250)).await;
    assert!(connection.is_usable());
    drop(connection);
    eventually("it is closed", || rig.pool.existing(SERVER).is_none()).await;
    eventually("the server sees it", || rig.server.numbers().open == 0).await;
    assert_eq!(rig.pool.counters().numbers().open, 0);
    assert_eq!(collect(rig.connect().await.request(Script::Gives.ask(0, 1))).await, Ok(1));
    assert_eq!(rig.network.dials(), 2);
    rig.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_is_replaced() {
    let rig = Rig::new();
    rig.connect().await.close("for the test");
    assert!(rig.pool.existing(SERVER).is_none());
    assert_eq!(collect(rig.connect().await.request(Script::Gives.ask(0, 1))).await, Ok(1));
    rig.pool.drop_host(SERVER, "it lied");
    let error = rig.pool.connect(SERVER, &[ADDR]).await.err().unwrap();
    assert!(matches!(*error, ConnectError::BackingOff { .. }), "{error}");
    rig.network.refuse(ADDR);
    rig.finish().await;
}
