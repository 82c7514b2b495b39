{{/* A stage's Job: suspended and gated until the driver releases it. Takes the dict of medkd.podTemplate, and completions,
     parallelism, maxFailedIndexes, failIndex (whether bad input fails one index and not the Job). */}}
{{- define "medkd.stageJob" -}}
{{- $root := .root -}}
{{- $stage := .component -}}
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ include "medkd.fullname" $root }}-{{ $stage }}
  labels:
    {{- include "medkd.labels" (dict "root" $root "component" $stage) | nindent 4 }}
    {{- with include "medkd.kueueLabels" . | trim }}
    {{- . | nindent 4 }}
    {{- end }}
  annotations:
    # Kueue leaves gated Jobs alone, those of a queue called `default`, too; the driver removes it.
    kueue.x-k8s.io/admission-gated-by: medkd.io/pipeline
    {{- with include "medkd.kueueAnnotations" . | trim }}
    {{- . | nindent 4 }}
    {{- end }}
spec:
  suspend: true
  completionMode: Indexed
  completions: {{ int64 .completions }}
  parallelism: {{ int64 .parallelism }}
  backoffLimitPerIndex: {{ int64 .values.maxRestarts }}
  maxFailedIndexes: {{ int64 (.maxFailedIndexes | default 0) }}
  podReplacementPolicy: Failed
  podFailurePolicy:
    rules:
      - action: Ignore
        onPodConditions:
          - {type: DisruptionTarget, status: "True"}
      - action: FailJob
        onExitCodes: {containerName: main, operator: In, values: [{{ if .failIndex }}64, 77, 78, 79{{ else }}64, 65, 77, 78, 79{{ end }}]}
      {{- if .failIndex }}
      - action: FailIndex
        onExitCodes: {containerName: main, operator: In, values: [65]}
      {{- end }}
  template:
    {{- include "medkd.podTemplate" . | nindent 4 }}
{{- end }}

{{/* The queue is a label from the start, or in mode `label` an annotation that the driver turns into one. */}}
{{- define "medkd.kueueLabels" -}}
{{- $kueue := .root.Values.kueue -}}
{{- $stage := index $kueue.stages .component | default dict -}}
{{- if eq $kueue.releaseMode "gate" }}
{{- with $stage.queueName | default $kueue.queueName }}
kueue.x-k8s.io/queue-name: {{ . }}
{{- end }}
{{- end }}
{{- with $stage.priorityClass }}
kueue.x-k8s.io/priority-class: {{ . }}
{{- end }}
{{- with $stage.maxExecSeconds }}
kueue.x-k8s.io/max-exec-time-seconds: {{ int64 . | quote }}
{{- end }}
{{- end }}

{{- define "medkd.kueueAnnotations" -}}
{{- $kueue := .root.Values.kueue -}}
{{- $stage := index $kueue.stages .component | default dict -}}
{{- if eq $kueue.releaseMode "label" }}
{{- with $stage.queueName | default $kueue.queueName }}
medkd.io/queue-name: {{ . }}
{{- end }}
{{- end }}
{{- if and (eq .component "generate") $kueue.minParallelism }}
kueue.x-k8s.io/job-min-parallelism: {{ int64 $kueue.minParallelism | quote }}
{{- end }}
{{- end }}

{{/* Topology that Kueue reads from the pod template. Takes the dict of the Job; returns JSON. */}}
{{- define "medkd.topology" -}}
{{- $stage := index .root.Values.kueue.stages .component | default dict -}}
{{- $annotations := dict -}}
{{- with $stage.requiredTopology }}{{ $_ := set $annotations "kueue.x-k8s.io/podset-required-topology" . }}{{ end -}}
{{- with $stage.preferredTopology }}{{ $_ := set $annotations "kueue.x-k8s.io/podset-preferred-topology" . }}{{ end -}}
{{- toJson $annotations -}}
{{- end }}
