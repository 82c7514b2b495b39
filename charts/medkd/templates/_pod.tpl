{{/* `pods` with a component's own `pod` merged over it, lists added, as JSON. Takes a dict: root, pod. */}}
{{- define "medkd.podValues" -}}
{{- $common := deepCopy .root.Values.pods -}}
{{- $merged := deepCopy $common -}}
{{- include "medkd.merge" (dict "target" $merged "overrides" .pod) -}}
{{- range $key, $value := .pod -}}
{{- if kindIs "slice" $value }}{{ $_ := set $merged $key (concat (index $common $key) $value) }}{{ end -}}
{{- end -}}
{{- toJson $merged -}}
{{- end }}

{{/* A pod template's metadata and spec. Takes a dict: root, component, image (worker or trainer), account (worker or driver), args
     (YAML list), values (resources, scratchSize, terminationGracePeriodSeconds, pod), and for some: config (the ConfigMap's stage),
     teacher, hub (whether those Secrets are mounted), env, mounts, volumes, ports (YAML lists), subdomain, gpus, annotations. */}}
{{- define "medkd.podTemplate" -}}
{{- $root := .root -}}
{{- $pod := include "medkd.podValues" (dict "root" $root "pod" .values.pod) | fromJson -}}
metadata:
  labels:
    {{- include "medkd.labels" (dict "root" $root "component" .component) | nindent 4 }}
    {{- with $pod.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- $annotations := merge (dict) $pod.annotations (.annotations | default dict) }}
  {{- if .config }}
  {{- $read := include "medkd.slice" (dict "root" $root "stage" .config) }}
  {{- if eq .config "plan" }}{{ $read = print $read $root.Values.plan.recordSchema }}{{ end }}
  {{- $_ := set $annotations "checksum/config" (sha256sum $read) }}
  {{- end }}
  {{- with $annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- include "medkd.podSpec" (merge (dict "podValues" $pod) .) | nindent 2 }}
{{- end }}

{{/* The spec inside a pod template; the dict of medkd.podTemplate and podValues. */}}
{{- define "medkd.podSpec" -}}
{{- $root := .root -}}
{{- $pod := .podValues -}}
restartPolicy: Never
serviceAccountName: {{ include "medkd.serviceAccount" (dict "root" $root "account" .account) }}
automountServiceAccountToken: {{ eq .account "driver" }}
enableServiceLinks: false
terminationGracePeriodSeconds: {{ int64 (.values.terminationGracePeriodSeconds | default 30) }}
{{- with .subdomain }}
subdomain: {{ . }}
{{- end }}
{{- with $root.Values.images.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- range $key := list "priorityClassName" "schedulerName" "runtimeClassName" }}
{{- with index $pod $key }}
{{ $key }}: {{ . }}
{{- end }}
{{- end }}
securityContext:
  {{- toYaml $pod.podSecurityContext | nindent 2 }}
{{- range $key := list "nodeSelector" "affinity" "topologySpreadConstraints" "resourceClaims" }}
{{- with index $pod $key }}
{{ $key }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
tolerations:
  {{- range $taint := list "not-ready" "unreachable" }}
  - {key: node.kubernetes.io/{{ $taint }}, operator: Exists, effect: NoExecute, tolerationSeconds: {{ int64 $pod.nodeLostSeconds }}}
  {{- end }}
  {{- with $pod.tolerations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
containers:
  - name: main
    image: {{ include "medkd.image" (dict "root" $root "image" .image) }}
    imagePullPolicy: {{ $root.Values.images.pullPolicy }}
    args:
      {{- .args | trim | nindent 6 }}
    env:
      {{- include "medkd.env" . | trim | nindent 6 }}
      {{- with .env }}
      {{- . | trim | nindent 6 }}
      {{- end }}
      {{- with $pod.extraEnv }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    {{- with $pod.extraEnvFrom }}
    envFrom:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with .ports }}
    ports:
      {{- . | trim | nindent 6 }}
    {{- end }}
    resources:
      {{- include "medkd.resources" . | nindent 6 }}
    securityContext:
      {{- toYaml $pod.securityContext | nindent 6 }}
    terminationMessagePolicy: FallbackToLogsOnError
    volumeMounts:
      {{- include "medkd.mounts" . | trim | nindent 6 }}
volumes:
  {{- include "medkd.volumes" . | trim | nindent 2 }}
{{- end }}

{{/* The container's resources with its GPUs among the limits. */}}
{{- define "medkd.resources" -}}
{{- $resources := deepCopy .values.resources -}}
{{- if .gpus -}}
{{- $limits := $resources.limits | default dict -}}
{{- $_ := set $limits .root.Values.train.gpuResource (toString .gpus) -}}
{{- $_ := set $resources "limits" $limits -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end }}

{{/* Environment of every container: caches on the scratch volume, the store, proxies, certificates, the hub. */}}
{{- define "medkd.env" -}}
{{- $values := .root.Values -}}
{{- $scratch := "/scratch" }}
- {name: HOME, value: {{ $scratch }}}
- {name: TMPDIR, value: {{ $scratch }}}
- {name: USER, value: medkd}
{{- $caches := dict "XDG_CACHE_HOME" "cache" "HF_HOME" "huggingface" "TORCH_HOME" "torch" "TORCHINDUCTOR_CACHE_DIR" "inductor" "TRITON_CACHE_DIR" "triton" "CUDA_CACHE_PATH" "cuda" "NUMBA_CACHE_DIR" "numba" "MPLCONFIGDIR" "matplotlib" }}
{{- range $name, $folder := $caches }}
- {name: {{ $name }}, value: {{ $scratch }}/{{ $folder }}}
{{- end }}
{{- with $values.storage.endpoint }}
- {name: AWS_ENDPOINT_URL, value: {{ . | quote }}}
{{- end }}
{{- with $values.storage.region }}
- {name: AWS_REGION, value: {{ . | quote }}}
- {name: AWS_DEFAULT_REGION, value: {{ . | quote }}}
{{- end }}
{{- with $values.storage.existingSecret }}
- name: AWS_ACCESS_KEY_ID
  valueFrom: {secretKeyRef: {name: {{ . }}, key: {{ $values.storage.accessKeyIdKey }}, optional: true}}
- name: AWS_SECRET_ACCESS_KEY
  valueFrom: {secretKeyRef: {name: {{ . }}, key: {{ $values.storage.secretAccessKeyKey }}, optional: true}}
{{- end }}
{{- if or $values.proxy.http $values.proxy.https }}
{{- with $values.proxy.http }}
- {name: HTTP_PROXY, value: {{ . | quote }}}
{{- end }}
{{- with $values.proxy.https }}
- {name: HTTPS_PROXY, value: {{ . | quote }}}
{{- end }}
- {name: NO_PROXY, value: {{ list "localhost" "127.0.0.1" "$(KUBERNETES_SERVICE_HOST)" ".svc" ".cluster.local" $values.proxy.noProxy | compact | join "," | quote }}}
{{- end }}
{{- if $values.caBundle.existingConfigMap }}
{{- range $name := list "REQUESTS_CA_BUNDLE" "SSL_CERT_FILE" "AWS_CA_BUNDLE" "CURL_CA_BUNDLE" }}
- {name: {{ $name }}, value: /etc/medkd-ca/ca.crt}
{{- end }}
{{- end }}
{{- if .hub }}
{{- with $values.hub.existingSecret }}
- {name: HF_TOKEN_PATH, value: /var/run/medkd/hub/HF_TOKEN}
{{- end }}
{{- with $values.hub.endpoint }}
- {name: HF_ENDPOINT, value: {{ . | quote }}}
{{- end }}
# One plain stream a file: no cache of chunks on the scratch volume, and proxy and certificates hold.
- {name: HF_HUB_DISABLE_XET, value: "1"}
{{- end }}
{{- if or $values.hub.offline (not .hub) }}
- {name: HF_HUB_OFFLINE, value: "1"}
{{- end }}
{{- end }}

{{- define "medkd.mounts" -}}
{{- $values := .root.Values -}}
- {name: scratch, mountPath: /scratch}
- {name: tmp, mountPath: /tmp}
{{- if .config }}
- {name: config, mountPath: /etc/medkd, readOnly: true}
{{- end }}
{{- if and .teacher $values.teacher.existingSecret }}
- {name: teacher-key, mountPath: /var/run/medkd/secrets, readOnly: true}
{{- end }}
{{- if and .hub $values.hub.existingSecret }}
- {name: hub-token, mountPath: /var/run/medkd/hub, readOnly: true}
{{- end }}
{{- if $values.caBundle.existingConfigMap }}
- {name: ca-bundle, mountPath: /etc/medkd-ca, readOnly: true}
{{- end }}
{{- if $values.storage.existingClaim }}
- {name: store, mountPath: {{ $values.storage.mountPath }}}
{{- end }}
{{- with .mounts }}
{{ . | trim }}
{{- end }}
{{- with .podValues.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Volumes. Secrets are optional: a process that misses one says so and leaves with 78, a pod that waits for one says nothing. */}}
{{- define "medkd.volumes" -}}
{{- $values := .root.Values -}}
- {name: scratch, emptyDir: {sizeLimit: {{ .values.scratchSize | default "1Gi" }}}}
- {name: tmp, emptyDir: {sizeLimit: 1Gi}}
{{- if .config }}
- {name: config, configMap: {name: {{ include "medkd.fullname" .root }}-{{ .config }}}}
{{- end }}
{{- if .teacher }}
{{- with $values.teacher.existingSecret }}
- {name: teacher-key, secret: {secretName: {{ . }}, optional: true, defaultMode: 0440}}
{{- end }}
{{- end }}
{{- if .hub }}
{{- with $values.hub.existingSecret }}
- {name: hub-token, secret: {secretName: {{ . }}, optional: true, defaultMode: 0440, items: [{key: {{ $values.hub.tokenKey }}, path: HF_TOKEN}]}}
{{- end }}
{{- end }}
{{- with $values.caBundle.existingConfigMap }}
- {name: ca-bundle, configMap: {name: {{ . }}, items: [{key: {{ $values.caBundle.key }}, path: ca.crt}]}}
{{- end }}
{{- with $values.storage.existingClaim }}
- {name: store, persistentVolumeClaim: {claimName: {{ . }}}}
{{- end }}
{{- with .volumes }}
{{ . | trim }}
{{- end }}
{{- with .podValues.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}
