{{/* Start of every object's name. 40 characters leave room for the longest suffix and a shard's index in a DNS label. */}}
{{- define "medkd.fullname" -}}
{{- .Values.fullnameOverride | default .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{- define "medkd.run" -}}
{{- .Values.runName | default .Release.Name -}}
{{- end }}

{{/* Where the run lies. */}}
{{- define "medkd.prefix" -}}
{{- printf "%s/%s" (trimSuffix "/" .Values.storage.prefix) (include "medkd.run" .) -}}
{{- end }}

{{/* Labels of an object. Takes a dict: root, component (a stage, driver or run). */}}
{{- define "medkd.labels" -}}
{{- with .root.Values.commonLabels }}
{{- toYaml . }}
{{ end -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: medkd
{{ include "medkd.selector" . }}
medkd.io/run: {{ .root.Release.Name }}
{{- if has .component (list "plan" "generate" "prepare" "train" "evaluate") }}
medkd.io/stage: {{ .component }}
{{- end }}
{{- end }}

{{/* Labels that select the pods of a component. Same dict. */}}
{{- define "medkd.selector" -}}
app.kubernetes.io/name: medkd
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* A ServiceAccount's name. Takes a dict: root, account (worker or driver). */}}
{{- define "medkd.serviceAccount" -}}
{{- $values := index .root.Values.serviceAccounts .account -}}
{{- $values.name | default (printf "%s-%s" (include "medkd.fullname" .root) .account) -}}
{{- end }}

{{/* An image's reference. Takes a dict: root, image (worker or trainer). */}}
{{- define "medkd.image" -}}
{{- $images := .root.Values.images -}}
{{- $image := index $images .image -}}
{{- $repository := $image.repository -}}
{{- with $images.registry }}{{ $repository = printf "%s/%s" (trimSuffix "/" .) $repository }}{{ end -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository ($image.tag | default .root.Chart.AppVersion) -}}
{{- end -}}
{{- end }}
