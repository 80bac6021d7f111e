//! Machines on real links: a network namespace each, on a bridge that has one of its own, shaped both ways.
//!
//! Nothing of it is seen from outside: links, addresses and settings lie inside its namespaces, and go with them.
//! They go when the testbed is dropped, with whatever runs inside; what a killed process leaves is taken away by the
//! next testbed. Making namespaces is for root.

mod filter;
mod fleet;
mod link;
mod namespace;
mod plan;
mod trouble;

use std::fs;
use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use dfs_model::Rate;

pub use filter::{Fate, Filter, Way, Whom};
pub use fleet::{Fleet, Part};
pub use link::{Shaped, Traffic};
pub use namespace::Reaper;
pub use plan::{Idcs, Layout, Links, Place, Role};
pub use trouble::Trouble;

use crate::process::Said;
use crate::{Failure, Origin};
use namespace::Namespace;

/// Of a machine.
const LINK: &str = "eth0";
/// Of a bridge.
const BRIDGE: &str = "bridge";
/// Of the bridge of a data centre, towards the core.
const UPLINK: &str = "uplink";

/// Bridges hand packets on; nobody's filters look at them.
const OF_A_BRIDGE: [(&str, &str); 4] = [
    ("bridge/bridge-nf-call-iptables", "0"),
    ("bridge/bridge-nf-call-ip6tables", "0"),
    ("bridge/bridge-nf-call-arptables", "0"),
    ("ipv6/conf/all/disable_ipv6", "1"),
];
/// What one run learns of a link is not known to the next.
const OF_A_MACHINE: [(&str, &str); 2] =
    [("ipv4/tcp_no_metrics_save", "1"), ("ipv6/conf/all/disable_ipv6", "1")];
/// Where connections are not protected the addresses are of loopback, and are routed all the same.
const OF_A_PLAIN_MACHINE: (&str, &str) = ("ipv4/conf/all/route_localnet", "1");
const PLAIN_ROUTES: &str = "route del local 127.0.0.0/8 dev lo table local\n";

/// Counts the testbeds of this process.
static NUMBER: AtomicUsize = AtomicUsize::new(0);

/// Machines and what joins them.
#[derive(Debug)]
pub struct Testbed {
    machines: Vec<Machine>,
    /// The core's, then one for each data centre or area.
    bridges: Vec<Namespace>,
}

/// A machine.
#[derive(Debug)]
pub struct Machine {
    place: Place,
    namespace: Namespace,
}

impl Testbed {
    /// Builds it.
    pub fn build(layout: &Layout) -> Result<Self, Failure> {
        if let Some(reason) = layout.why_not() {
            return Err(Failure::new(reason));
        }
        namespace::remove_leftovers();
        let prefix = namespace::prefix(std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let places = layout.places();
        let groups = layout.idcs.or(layout.areas).map_or(0, |groups| groups.count);
        let bridges = (0..=groups).map(|number| format!("{prefix}bridge{number}"));
        let machines = places.iter().map(|place| format!("{prefix}{}", place.name));
        let bridges = Namespace::make(&bridges.collect::<Vec<_>>())?;
        let machines = Namespace::make(&machines.collect::<Vec<_>>())?.into_iter();
        let machines = places.into_iter().zip(machines);
        let machines = machines.map(|(place, namespace)| Machine { place, namespace }).collect();
        let testbed = Self { machines, bridges };
        testbed.join(layout)?;
        Ok(testbed)
    }

    /// Lays the links.
    fn join(&self, layout: &Layout) -> Result<(), Failure> {
        for bridge in &self.bridges {
            bridge.set(&OF_A_BRIDGE)?;
            let made =
                format!("link add {BRIDGE} type bridge mcast_snooping 0\nlink set {BRIDGE} up\n");
            bridge.batch("ip", &made)?;
        }
        for (number, bridge) in self.bridges.iter().enumerate().skip(1) {
            let name = if layout.areas.is_some() { area_name } else { idc_name };
            let uplink = layout.idcs.or(layout.areas).map(|groups| groups.uplink);
            self.join_group(&name(number - 1), bridge, uplink)?;
        }
        self.machines.iter().try_for_each(|machine| self.join_machine(machine))
    }

    fn join_group(
        &self,
        port: &str,
        bridge: &Namespace,
        rate: Option<Rate>,
    ) -> Result<(), Failure> {
        let core = &self.bridges[0];
        let pair = format!("link add {UPLINK} type veth peer name {port} netns {}\n", core.name());
        bridge.batch("ip", &(pair + &port_up(UPLINK)))?;
        core.batch("ip", &port_up(port))?;
        bridge.batch("tc", &link::shaping(UPLINK, rate))?;
        core.batch("tc", &link::shaping(port, rate))
    }

    fn join_machine(&self, machine: &Machine) -> Result<(), Failure> {
        let (place, namespace) = (&machine.place, &machine.namespace);
        let (port, bridge) = (&place.name, self.bridge_of(machine));
        namespace.set(&OF_A_MACHINE)?;
        let is_plain = place.address.is_loopback();
        if is_plain {
            namespace.set(&[OF_A_PLAIN_MACHINE])?;
        }
        let routes = if is_plain { PLAIN_ROUTES } else { "" };
        let mut lines = format!(
            "link add {LINK} address {} type veth peer name {port} netns {}\n\
             link set lo up\n\
             {routes}addr add {}/16 dev {LINK}\n\
             link set {LINK} up\n",
            place.mac(),
            bridge.name(),
            place.address,
        );
        for other in self.machines.iter().filter(|other| other.place.name != place.name) {
            let (address, mac) = (other.place.address, other.place.mac());
            // The kernel's table of neighbours is one for all namespaces: those that it learns push each other out.
            lines += &format!("neigh replace {address} lladdr {mac} dev {LINK} nud permanent\n");
        }
        namespace.batch("ip", &lines)?;
        bridge.batch("ip", &port_up(port))?;
        match place.link {
            Some(rate) => self.shape(machine, Some(rate), Some(rate)),
            None => Ok(()),
        }
    }

    /// Sets what a machine's link carries away from it, and to it.
    fn shape(
        &self,
        machine: &Machine,
        up: Option<Rate>,
        down: Option<Rate>,
    ) -> Result<(), Failure> {
        machine.namespace.batch("tc", &link::shaping(LINK, up))?;
        self.bridge_of(machine).batch("tc", &link::shaping(&machine.place.name, down))
    }

    fn bridge_of(&self, machine: &Machine) -> &Namespace {
        &self.bridges[machine.place.idc.or(machine.place.area).map_or(0, |group| group + 1)]
    }

    /// All machines.
    pub fn machines(&self) -> &[Machine] {
        &self.machines
    }

    /// The machines that are there for this.
    pub fn all(&self, role: Role) -> impl Iterator<Item = &Machine> {
        self.machines.iter().filter(move |machine| machine.place.role == role)
    }

    /// The first machine that is there for this.
    pub fn first(&self, role: Role) -> Result<&Machine, Failure> {
        let missing = || Failure::new(format!("the testbed has no machine for {role:?}"));
        self.all(role).next().ok_or_else(missing)
    }

    /// Starts an origin on its machine.
    pub fn start_origin(&self, port: u16) -> Result<Origin, Failure> {
        let machine = self.first(Role::Origin)?;
        machine.inside(|| Origin::start_at((machine.address(), port).into()))
    }

    /// The machine of this name.
    pub fn machine(&self, name: &str) -> Result<&Machine, Failure> {
        let missing = || Failure::new(format!("no machine is called {name}"));
        self.machines.iter().find(|machine| machine.place.name == name).ok_or_else(missing)
    }

    /// Unplugs a machine, a data centre, or an area.
    pub fn unplug(&self, name: &str) -> Result<(), Failure> {
        self.set_port(name, "down")
    }

    /// Plugs it in again.
    pub fn plug(&self, name: &str) -> Result<(), Failure> {
        self.set_port(name, "up")
    }

    /// At the bridge's end: the machine keeps its addresses and sees its link without a carrier.
    fn set_port(&self, name: &str, to: &str) -> Result<(), Failure> {
        let is_group = self.machines.iter().any(|machine| machine.group().as_deref() == Some(name));
        let core = || Ok(&self.bridges[0]);
        let bridge =
            if is_group { core() } else { self.machine(name).map(|one| self.bridge_of(one)) };
        bridge?.batch("ip", &format!("link set {name} {to}\n"))
    }

    /// From now on a machine's link carries this much each way.
    pub fn slow(&self, name: &str, rate: Rate) -> Result<(), Failure> {
        self.shape(self.machine(name)?, Some(rate), Some(rate))
    }

    /// From now on a machine's link carries this much away from it.
    pub fn slow_uplink(&self, name: &str, rate: Rate) -> Result<(), Failure> {
        self.machine(name)?.namespace.batch("tc", &link::shaping(LINK, Some(rate)))
    }

    /// A machine's link carries what it did at first.
    pub fn restore(&self, name: &str) -> Result<(), Failure> {
        let machine = self.machine(name)?;
        self.shape(machine, machine.place.link, machine.place.link)
    }

    /// From now on these packets of a machine do not come through, and no others.
    pub fn filter(&self, name: &str, filter: Option<&Filter>) -> Result<(), Failure> {
        self.machine(name)?.inside(|| filter::set(filter))
    }

    /// All other machines that are there for this.
    pub fn others(&self, name: &str, role: Role) -> Whom {
        let others = self.all(role).filter(|other| other.name() != name);
        Whom::These(others.map(Machine::address).collect())
    }

    /// Packets that the filter of a machine has struck.
    pub fn struck(&self, name: &str) -> Result<u64, Failure> {
        self.machine(name)?.inside(filter::struck)
    }

    /// What the uplink of a data centre or an area, counted from 0, has carried: away from it, and to it.
    pub fn uplink_traffic(&self, idc: usize) -> Result<Traffic, Failure> {
        let missing = || Failure::new(format!("there is no data centre {idc}"));
        let bridge = self.bridges.get(idc + 1).ok_or_else(missing)?;
        carried(bridge, UPLINK)
    }

    /// Ends whatever runs on it, from anywhere.
    pub fn reaper(&self) -> Reaper {
        Reaper::of(self.machines.iter().map(|machine| &machine.namespace).chain(&self.bridges))
    }
}

/// Of a data centre, counted from 0, and of its port at the core's bridge.
fn idc_name(idc: usize) -> String {
    format!("idc{}", idc + 1)
}

/// The same of an area.
fn area_name(area: usize) -> String {
    format!("area{}", area + 1)
}

/// Makes a link a port of the bridge.
fn port_up(port: &str) -> String {
    format!("link set {port} master {BRIDGE}\nlink set {port} up\n")
}

/// What a device has carried, as its namespace tells.
fn carried(namespace: &Namespace, device: &str) -> Result<Traffic, Failure> {
    let path = "/proc/thread-self/net/dev";
    let read = || fs::read_to_string(path).map_err(Failure::of(format!("cannot read {path}")));
    let table = namespace.inside(read)?;
    let missing = || Failure::new(format!("{} has no {device}", namespace.name()));
    link::traffic(&table, device).ok_or_else(missing)
}

impl Machine {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.place.name
    }

    /// Where it stands.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The name of its data centre.
    pub fn idc(&self) -> Option<String> {
        self.place.idc.map(idc_name)
    }

    /// The name of its area.
    pub fn area(&self) -> Option<String> {
        self.place.area.map(area_name)
    }

    /// The name of its data centre or area.
    pub fn group(&self) -> Option<String> {
        self.idc().or(self.area())
    }

    /// Its address.
    pub fn address(&self) -> Ipv4Addr {
        self.place.address
    }

    /// Its namespace, for `ip netns exec`.
    pub fn namespace(&self) -> &str {
        self.namespace.name()
    }

    /// Does something on a thread of this machine: what it starts runs there, and its sockets are there.
    pub fn inside<T: Send>(
        &self,
        work: impl FnOnce() -> Result<T, Failure> + Send,
    ) -> Result<T, Failure> {
        self.namespace.inside(work)
    }

    /// Moves the calling thread to this machine, for good.
    pub fn enter(&self) -> Result<(), Failure> {
        self.namespace.enter()
    }

    /// What its link has carried.
    pub fn traffic(&self) -> Result<Traffic, Failure> {
        carried(&self.namespace, LINK)
    }

    /// What the shaper at its own end has done.
    pub fn shaped(&self) -> Result<Shaped, Failure> {
        let mut command = Command::new("tc");
        command.args(["-n", self.namespace(), "-s", "-j", "qdisc", "show", "dev", LINK]);
        let said = Said::by(&mut command)?.ok()?.json()?;
        let missing = || Failure::new(format!("the link of {} is not shaped", self.name()));
        link::shaped(&said).ok_or_else(missing)
    }
}
