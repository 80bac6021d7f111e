//! One end of a link: how it is shaped, and what went over it.

use dfs_model::Rate;
use serde_json::Value;

/// A packet that the kernel has put together of many must fit, or it is cut up again at the cost of a core.
const BURST: &str = "256kb";
/// How long a packet waits at most.
const LATENCY: &str = "50ms";

/// Bytes that a machine's link has carried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Away from the machine.
    pub sent: u64,
    /// To it.
    pub received: u64,
}

impl std::ops::Sub for Traffic {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self { sent: self.sent - earlier.sent, received: self.received - earlier.received }
    }
}

/// What the shaper of an end has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shaped {
    /// What it lets through in a second.
    pub rate: Rate,
    /// Bytes that it let through.
    pub bytes: u64,
    /// How often it held packets back.
    pub held: u64,
    /// Packets that waited too long.
    pub dropped: u64,
}

/// The line for `tc` that shapes an end, or lets everything through again.
pub fn shaping(device: &str, rate: Option<Rate>) -> String {
    match rate {
        Some(Rate(bytes)) => {
            let bits = bytes * 8;
            format!(
                "qdisc replace dev {device} root tbf rate {bits}bit burst {BURST} latency {LATENCY}\n"
            )
        }
        None => format!("qdisc del dev {device} root\n"),
    }
}

/// What a line of `/proc/net/dev` says of a device.
pub fn traffic(table: &str, device: &str) -> Option<Traffic> {
    let line =
        table.lines().find_map(|line| line.trim().strip_prefix(device)?.strip_prefix(':'))?;
    let numbers: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    Some(Traffic { received: *numbers.first()?, sent: *numbers.get(8)? })
}

/// What `tc -s -j qdisc show` says of the one shaper of a device.
pub fn shaped(said: &Value) -> Option<Shaped> {
    let shaper = said.as_array()?.iter().find(|one| one["kind"] == "tbf")?;
    let of = |name: &str| shaper[name].as_u64();
    let rate = Rate(shaper["options"]["rate"].as_u64()?);
    Some(Shaped { rate, bytes: of("bytes")?, held: of("overlimits")?, dropped: of("drops")? })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_counters_of_a_device_are_read() {
        let table = "Inter-|   Receive                |  Transmit\n face |bytes    packets errs\n    \
                     lo:       0       0    0    0    0     0          0         0        0       0\n  \
                     eth0:    1916       8    0    0    0     0          0         0      791      10    0\n";
        assert_eq!(traffic(table, "eth0"), Some(Traffic { received: 1916, sent: 791 }));
        assert_eq!(traffic(table, "eth1"), None);
        let earlier = Traffic { received: 16, sent: 1 };
        let later = traffic(table, "eth0").unwrap();
        assert_eq!(later - earlier, Traffic { received: 1900, sent: 790 });
    }

    #[test]
    fn the_counters_of_a_shaper_are_read() {
        let options = json!({"rate": 7, "burst": 262_144});
        let said =
            json!([{"kind": "tbf", "options": options, "bytes": 5, "overlimits": 3, "drops": 1}]);
        let expected = Shaped { rate: Rate(7), bytes: 5, held: 3, dropped: 1 };
        assert_eq!(shaped(&said), Some(expected));
        assert_eq!(shaped(&json!([{"kind": "noqueue"}])), None);
    }

    #[test]
    fn a_rate_is_written_in_bits() {
        let line = shaping("eth0", Some(Rate(12_500_000)));
        assert!(line.contains("rate 100000000bit burst 256kb latency 50ms"), "{line}");
        assert_eq!(shaping("eth0", None), "qdisc del dev eth0 root\n");
    }
}
