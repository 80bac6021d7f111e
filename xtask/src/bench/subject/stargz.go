// The snapshotter of stargz-snapshotter as a program of its own: Debian has its packages, and of its programs only the client.
//
//	stargz ROOT SOCKET
//
// All is as it is by default, but that registries are asked without TLS.
package main

import (
	"context"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/contrib/snapshotservice"
	"github.com/containerd/containerd/reference"
	"github.com/containerd/containerd/remotes/docker"
	"github.com/containerd/stargz-snapshotter/fs"
	"github.com/containerd/stargz-snapshotter/fs/config"
	"github.com/containerd/stargz-snapshotter/fs/source"
	"github.com/containerd/stargz-snapshotter/snapshot"
	"google.golang.org/grpc"
)

func main() {
	root, socket := os.Args[1], os.Args[2]
	client := &http.Client{Transport: http.DefaultTransport}
	plain := docker.ConfigureDefaultRegistries(docker.WithPlainHTTP(docker.MatchAllHosts), docker.WithClient(client))
	hosts := func(image reference.Spec) ([]docker.RegistryHost, error) { return plain(image.Hostname()) }
	settings := config.Config{NoPrometheus: true}
	sources := fs.WithGetSources(source.FromDefaultLabels(hosts))
	files, err := fs.NewFilesystem(filepath.Join(root, "stargz"), settings, sources)
	check(err)
	at := filepath.Join(root, "snapshotter")
	snapshotter, err := snapshot.NewSnapshotter(context.Background(), at, files, snapshot.AsynchronousRemove)
	check(err)
	listener, err := net.Listen("unix", socket)
	check(err)
	server := grpc.NewServer()
	snapshotsapi.RegisterSnapshotsServer(server, snapshotservice.FromSnapshotter(snapshotter))
	check(server.Serve(listener))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
